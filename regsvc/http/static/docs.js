// Shows /openapi.json with the Swagger UI that is vendored beside this file; nothing is loaded from elsewhere.
"use strict";

window.addEventListener("DOMContentLoaded", async () => {
  const spec = await (await fetch("/openapi.json")).json();
  // "Try it out" asks the service that showed the page, by whichever name it was reached.
  spec.servers = [{ url: location.origin }];
  const ui = SwaggerUIBundle({
    spec,
    dom_id: "#swagger",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    validatorUrl: null,
    // A 401 is shown as the answer it is; the browser does not ask for a password of its own accord.
    requestInterceptor: (request) => Object.assign(request, { credentials: "omit" }),
  });
  // The other paths of the same routes are there for those who look for them.
  ui.layoutActions.show(["operations-tag", "Aliases"], false);
});

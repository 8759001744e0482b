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
  });
  // The other paths of the same routes are there for those who look for them.
  ui.layoutActions.show(["operations-tag", "Aliases"], false);
});

// Server-sent events over fetch: EventSource cannot send an Authorization header.

/** Yield the messages of a stream as {event, data}, and null for a comment, until it ends. */
export async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let message = fresh();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const text = line.endsWith("\r") ? line.slice(0, -1) : line;
        if (text.startsWith(":")) yield null;
        else if (text) take(message, text);
        else {
          if (message.data.length) yield { event: message.event, data: message.data.join("\n") };
          message = fresh();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening hangs up
  }
}

const fresh = () => ({ event: "message", data: [] });

function take(message, text) {
  const at = text.indexOf(":");
  const name = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? "" : text.slice(at + 1).replace(/^ /, "");
  if (name === "event") message.event = value;
  else if (name === "data") message.data.push(value);
}

// Follows one session as the document's example does, and prints each event as a line of JSON.
// Arguments: address, "GET" or "POST", session id, after how many events the connection is broken off once (0: never).
import { EventSource } from "eventsource";

const [address, method, sessionId, breakAfter] = process.argv.slice(2);
const body = JSON.stringify({ sessionId, prompt: "Analyze this code", repository: { name: "owner/repo" } });
const events = [
  ...["connected", "status", "claude_start", "claude_delta", "claude_end"],
  ...["file_change", "complete", "error"],
];
let seen = 0;
let connection = new AbortController();

const posted = {
  fetch: (url, init) => {
    connection = new AbortController();
    const signal = AbortSignal.any([init.signal, connection.signal]);
    const headers = { ...init.headers, "Content-Type": "application/json" };
    return fetch(url, method === "POST" ? { ...init, signal, method, headers, body } : { ...init, signal });
  },
};
const query = method === "GET" ? `?sessionId=${encodeURIComponent(sessionId)}` : "";
const source = new EventSource(`${address}/interactive/start${query}`, posted);

for (const name of events) {
  source.addEventListener(name, (event) => {
    if (event.data === undefined) {
      return; // an error of the connection, which the source mends by itself
    }
    console.log(JSON.stringify({ event: name, id: event.lastEventId, data: JSON.parse(event.data) }));
    seen += 1;
    if (name === "complete" || name === "error") {
      source.close();
    } else if (seen === Number(breakAfter)) {
      connection.abort(new Error("the line breaks"));
    }
  });
}

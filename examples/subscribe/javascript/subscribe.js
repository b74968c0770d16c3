// Print Quarterdeck's events, of one job or of all, and go on after being away where it was left.
//
//   npm ci
//   NATS_URL=nats://subscriber:…@127.0.0.1:4222 node subscribe.js [--job JOB] [--name my-events]
//
// The durable consumer NAME remembers in NATS what was acknowledged; the file NAME.position the last event printed, so
// that one that comes twice is printed once. Ctrl-C ends it; the next start prints what was missed, up to 24 hours of it.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";

const { values: options } = parseArgs({
  options: { job: { type: "string" }, name: { type: "string", default: "my-events" } },
});
const { name, job } = options;
const { hostname, port, username, password } = new URL(process.env.NATS_URL);

const connection = await connect({
  servers: `${hostname}:${port || 4222}`,
  user: decodeURIComponent(username),
  pass: decodeURIComponent(password),
  inboxPrefix: "_INBOX_subscriber", // the only place where the user `subscriber` may hear replies
  maxReconnectAttempts: -1,
});

const domain = "quarterdeck";
const manager = await jetstreamManager(connection, { domain });
await manager.consumers.add("EVENTS", {
  // Changes nothing where it is there already.
  name,
  durable_name: name,
  filter_subject: job ? `qd.evt.${job}.>` : "qd.evt.>",
  ack_policy: AckPolicy.Explicit,
  ack_wait: nanos(10_000),
  max_ack_pending: 1, // one after the other: none overtakes one that has to be delivered again
});

// The `Qd-Sequence` of the last event printed: events count 1, 2, 3 … over all jobs, without holes.
const file = `${name}.position`;
let position = existsSync(file) ? Number(readFileSync(file, "utf8")) : 0;

function show(message) {
  const sequence = Number(message.headers?.get("Qd-Sequence") || 0);
  if (sequence <= position) return; // printed before, or a delta: a piece of a reply under way, which has no sequence
  const event = message.json();
  console.log(sequence, event.jobId, event.number, event.kind);
  position = sequence;
  writeFileSync(`${file}.new`, `${position}\n`);
  renameSync(`${file}.new`, file);
}

const consumer = await jetstream(connection, { domain }).consumers.get("EVENTS", name);
const messages = await consumer.consume();
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => messages.stop());
console.error("ready");
for await (const message of messages) {
  show(message);
  message.ack();
}
await connection.drain();

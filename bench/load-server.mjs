// fauxqs on a free port of 127.0.0.1, without its log, with one queue of COUNT login messages.
// Prints {"port": …, "url": …} when the queue is full. Usage: node load-server.mjs MODULES COUNT
import { pathToFileURL } from "node:url";
import path from "node:path";

const [modules, count] = process.argv.slice(2);
const { startFauxqs } = await import(pathToFileURL(path.join(modules, "fauxqs/dist/app.js")));
const server = await startFauxqs({ logger: false, port: 0, host: "127.0.0.1", defaultRegion: "us-east-1" });
const { queueUrl } = server.createQueue("login-queue", { attributes: { VisibilityTimeout: "120" } });

const pad = (n, width) => String(n).padStart(width, "0");
const message = (i) => ({
  user_id: `00000000-0000-4000-8000-${pad(i, 12)}`,
  app_version: `${i % 5}.${i % 10}.${i % 7}`,
  device_type: i % 2 ? "android" : "ios",
  ip: `10.${(i >> 16) % 256}.${(i >> 8) % 256}.${i % 256}`,
  locale: i % 9 ? "RU" : null,
  device_id: `${pad(i % 1000, 3)}-${pad(i % 100, 2)}-${pad(i % 10000, 4)}`,
});
for (let i = 0; i < Number(count); i++) {
  server.sendMessage("login-queue", JSON.stringify(message(i)));
}
console.log(JSON.stringify({ port: server.port, url: queueUrl }));

// One connection of the npm package `ws`, driven by lines of JSON: commands on stdin, events on stdout.
"use strict";

const { once } = require("node:events");
const readline = require("node:readline");
const { WebSocket, WebSocketServer } = require("ws");

let socket;

function tell(event, more = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
}

const bytes = (base64) => Buffer.from(base64, "base64");

function take(opened, extensions) {
  socket = opened;
  socket.on("message", (data, binary) => tell("message", { binary, data: data.toString("base64") }));
  socket.on("pong", (data) => tell("pong", { data: data.toString("base64") }));
  socket.on("close", (code, reason) => tell("close", { code, reason: reason.toString() }));
  socket.on("error", (error) => tell("error", { message: error.message }));
  tell("open", { extensions, subprotocol: socket.protocol });
}

const commands = {
  connect({ url, subprotocols, deflate }) {
    const client = new WebSocket(url, subprotocols, { perMessageDeflate: deflate });
    let extensions = "";
    client.on("upgrade", (response) => (extensions = response.headers["sec-websocket-extensions"] ?? ""));
    client.on("open", () => take(client, extensions));
    client.on("unexpected-response", (request, response) => tell("refused", { status: response.statusCode }));
    client.on("error", (error) => socket ?? tell("error", { message: error.message }));
  },

  serve({ subprotocols, deflate, refuse, header }) {
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      perMessageDeflate: deflate,
      handleProtocols: (offered) => subprotocols.find((name) => offered.has(name)) ?? false,
      verifyClient: refuse ? (info, done) => done(false, refuse, "not here", { [header[0]]: header[1] }) : undefined,
    });
    let extensions = "";
    server.on("headers", (headers) => {
      const line = headers.find((candidate) => /^sec-websocket-extensions:/i.test(candidate));
      extensions = line ? line.slice(line.indexOf(":") + 1).trim() : "";
    });
    server.on("connection", (accepted) => take(accepted, extensions));
    server.on("listening", () => tell("listening", { port: server.address().port }));
  },

  send({ data, binary }) {
    socket.send(bytes(data), { binary });
  },

  async fragments({ parts, binary, ping }) {
    socket.send(bytes(parts[0]), { binary, fin: false });
    socket.ping(bytes(ping));
    await once(socket, "pong");
    for (const [index, part] of parts.entries()) {
      if (index > 0) socket.send(bytes(part), { binary, fin: index === parts.length - 1 });
    }
  },

  ping({ data }) {
    socket.ping(bytes(data));
  },

  close({ code, reason }) {
    if (code === null) socket.close();
    else socket.close(code, reason);
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    await commands[command.do](command);
  }
  process.exit(0);
}

main();

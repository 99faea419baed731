// Node's ws, with bufferutil and utf-8-validate. Takes the options of common.py that apply to it.
'use strict';

const fs = require('fs');
const http = require('http');
const https = require('https');
const path = require('path');
const { parseArgs } = require('util');
const { WebSocketServer } = require('ws');

// It ends by itself, whatever becomes of whoever started it.
const LIFETIME_MS = 900_000;

const { values: options } = parseArgs({
  options: {
    certificate: { type: 'string' },
    key: { type: 'string' },
    compression: { type: 'string' },
    'max-size': { type: 'string', default: String(16 * 1024 * 1024) },
    json: { type: 'boolean', default: false },
    broadcast: { type: 'boolean', default: false },
    burst: { type: 'string', default: '0' },
  },
});

const server = options.certificate
  ? https.createServer({ cert: fs.readFileSync(options.certificate), key: fs.readFileSync(options.key) })
  : http.createServer();

const sockets = new WebSocketServer({
  server,
  maxPayload: Number(options['max-size']),
  // Its threshold of 1024 bytes is taken away, so that all servers compress the same messages.
  perMessageDeflate: options.compression ? { threshold: 0 } : false,
});

sockets.on('connection', (socket) => {
  if (options.json) {
    socket.on('message', (data) => socket.send(JSON.stringify(JSON.parse(data))));
  } else if (Number(options.burst)) {
    socket.on('message', (data, binary) =>
      setImmediate(() => {
        for (let i = 0; i < Number(options.burst); i++) {
          sockets.clients.forEach((client) => client.send(data, { binary }));
        }
      }),
    );
  } else if (options.broadcast) {
    socket.on('message', (data, binary) => sockets.clients.forEach((client) => client.send(data, { binary })));
  } else {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  }
});

const version = (name) => require(path.join(name, 'package.json')).version;

server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  const versions = { node: process.versions.node };
  for (const name of ['ws', 'bufferutil', 'utf-8-validate']) {
    versions[name] = version(name);
  }
  console.log(JSON.stringify({ port: server.address().port, versions }));
});

process.stdin.on('end', () => process.exit(0)).resume();
setTimeout(() => process.exit(1), LIFETIME_MS);

// Test data, and a proxy between the browser and the server.

import fs from "node:fs";
import http from "node:http";

const AUDIO = new URL("../fixtures/audio/", import.meta.url);

export const audio = (name) => new URL(name, AUDIO).pathname;

/** A text that would execute a script if the page parsed it as HTML. */
export const HOSTILE = `<img src=x onerror="document.title='run'"> </script><script>document.title='run'</script> it's "quoted" \\ $HOME & more`;

/** Writes a recording as WAV for Chromium's fake microphone. */
export function microphone(path) {
  const aiff = fs.readFileSync(audio("speech.aiff"));
  const chunk = aiff.indexOf("SSND");
  const samples = Buffer.from(aiff.subarray(chunk + 16, chunk + 8 + aiff.readUInt32BE(chunk + 4))).swap16();
  const header = Buffer.alloc(44);
  header.write("RIFF");
  header.writeUInt32LE(36 + samples.length, 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(16000, 24);
  header.writeUInt32LE(32000, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write("data", 36);
  header.writeUInt32LE(samples.length, 40);
  fs.writeFileSync(path, Buffer.concat([header, samples]));
  return path;
}

/** A proxy like API Gateway: it serves the function below a path and buffers each response. Returns the server and its URL. */
export async function bufferingProxy(target, prefix) {
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) return response.writeHead(404).end();
    const url = new URL(request.url.slice(prefix.length).replace(/^\/?/, "/"), target);
    const forwarded = http.request(url, { method: request.method, headers: request.headers }, async (received) => {
      const body = Buffer.concat(await received.toArray());
      const { "transfer-encoding": _, ...headers } = received.headers;
      response.writeHead(received.statusCode, headers).end(body);
    });
    forwarded.on("error", () => response.destroy());
    request.pipe(forwarded);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://127.0.0.1:${server.address().port}${prefix}` };
}

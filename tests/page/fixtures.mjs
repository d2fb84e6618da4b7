// What the tests send, and what stands between them and the server.

import fs from "node:fs";
import http from "node:http";

const AUDIO = new URL("../fixtures/audio/", import.meta.url);

export const audio = (name) => new URL(name, AUDIO).pathname;

/** Texts that would run as scripts where a page took them for HTML. */
export const HOSTILE = `<img src=x onerror="document.title='run'"> </script><script>document.title='run'</script> it's "quoted" \\ $HOME & more`;

/** A recording as WAV, which is what chromium plays into its microphone that is none. */
export function microphone(path) {
  const aiff = fs.readFileSync(audio("speech.aiff"));
  const at = aiff.indexOf("SSND");
  const samples = Buffer.from(aiff.subarray(at + 16, at + 8 + aiff.readUInt32BE(at + 4))).swap16();
  const head = Buffer.alloc(44);
  head.write("RIFF");
  head.writeUInt32LE(36 + samples.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(16000, 24);
  head.writeUInt32LE(32000, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(samples.length, 40);
  fs.writeFileSync(path, Buffer.concat([head, samples]));
  return path;
}

/** A front door as API Gateway is: the function stands below a path, and a reply is sent when it is whole. Returns its address. */
export async function frontDoor(target, prefix) {
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) return response.writeHead(404).end();
    const url = new URL(request.url.slice(prefix.length).replace(/^\/?/, "/"), target);
    const inner = http.request(url, { method: request.method, headers: request.headers }, async (reply) => {
      const body = Buffer.concat(await reply.toArray());
      const { "transfer-encoding": _, ...headers } = reply.headers;
      response.writeHead(reply.statusCode, headers).end(body);
    });
    inner.on("error", () => response.destroy());
    request.pipe(inner);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { server, url: `http://127.0.0.1:${server.address().port}${prefix}` };
}

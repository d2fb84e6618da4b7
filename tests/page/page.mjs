// Tests of the page in a browser against a real server with real models, which tests/check_page starts.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { launch, open, waitForMessage } from "./browser.mjs";
import { poorContrasts } from "./contrast.mjs";
import { HOSTILE, audio, bufferingProxy, microphone } from "./fixtures.mjs";

const { TEALIGHT_URL: URL_, TEALIGHT_URL_WITH_KEY: URL_WITH_KEY, TEALIGHT_PAGE_OUT: OUT } = process.env;
const TABS = ["embeddings", "search", "transcribe", "generate", "status"];
let browser;

before(async () => {
  browser = await launch(microphone(`${OUT}/microphone.wav`));
});

after(() => browser.close());

/** A test in a new page that fails on any script error, console error or policy violation that does not match `expected`. */
function testPage(name, path, run, { expected = /^$/, base = URL_, ...options } = {}) {
  test(name, async () => {
    const { page, problems } = await open(browser, `${base}/${path}`, options);
    try {
      await run(page);
      assert.equal(await page.evaluate(() => document.title.startsWith("tealight")), true, "a script inserted as text was executed");
      assert.deepEqual(problems.filter((problem) => !expected.test(problem)), []);
    } catch (error) {
      await page.screenshot({ path: `${OUT}/failed.png`, fullPage: true });
      throw error;
    } finally {
      await page.context().close();
    }
  });
}

const press = (page, name) => page.getByRole("button", { name, exact: true }).click();
const texts = (page, selector) => page.locator(selector).allTextContents();

const compare = async (page) => {
  await press(page, "Compare");
  return waitForMessage(page, "embed-message", /tokens?;|the limit is|cannot be reached|requires an API key|at most/);
};

const search = async (page) => {
  await page.locator("#search-form").getByRole("button", { name: "Search" }).click();
  return waitForMessage(page, "search-message", /results? in|could not be built/);
};

const transcribe = async (page, name) => {
  await page.locator("#audio-file").setInputFiles(audio(name));
  await press(page, "Transcribe");
  return waitForMessage(page, "transcribe-message", /segments?;|No speech detected|accepts at most/);
};

const generate = async (page, button) => {
  await press(page, button);
  return waitForMessage(page, "generate-message", /Done|Stopped|is empty/);
};

// Embeddings

testPage("similar texts have the highest scores and are close together in the map", "#embeddings", async (page) => {
  assert.match(await compare(page), /^Most similar: \d and \d \(0\.\d\d\)\. \d+ tokens; \d+ ms inference, [\d.]+ m?s round trip\.$/);
  const rows = await page.locator("#similarity-matrix tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(1).map((c) => Number(c.textContent))));
  assert.equal(rows.length, 6);
  for (const i of rows.keys()) {
    assert.equal(rows[i][i], 1);
    const others = rows[i].map((score, j) => (j === i ? -1 : score));
    // The example texts are three pairs of similar texts.
    assert.equal(others.indexOf(Math.max(...others)), i ^ 1, `row ${i}: ${rows[i]}`);
  }
  assert.equal(await page.locator("#similarity-matrix th[scope=row]").count(), 6);
  const titles = await texts(page, "#map title");
  assert.deepEqual([titles.length, titles[2]], [6, "3: How do I reset my password?"]);
  const points = await page.locator("#map circle").evaluateAll((dots) => dots.map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value]));
  const distance = (i, j) => Math.hypot(points[i][0] - points[j][0], points[i][1] - points[j][1]);
  assert.ok(distance(0, 1) < distance(0, 2) && distance(2, 3) < distance(2, 4) && distance(4, 5) < distance(4, 0), `${points}`);
});

testPage("code snippets send the same request", "#embeddings", async (page) => {
  await page.locator("#embed-texts").fill(`It's a "test" of $HOME, \\n and \`quotes\`\nzwei Zeilen ☕`);
  await page.locator("#embed-dimensions").fill("4");
  await page.locator("#embed-truncate").check();
  const snippet = () => page.locator("#snippet").textContent();
  const response = JSON.parse(execFileSync("bash", ["-c", await snippet()], { stdio: ["ignore", "pipe", "ignore"] }));
  assert.deepEqual(response.data.map((row) => row.embedding.length), [4, 4]);
  await page.getByText("JavaScript", { exact: true }).click();
  const printed = execFileSync("node", ["--input-type=module", "-e", await snippet()], { encoding: "utf8" });
  assert.deepEqual(printed.match(/-?\d+\.\d+/g).map(Number).map(Math.fround), response.data[0].embedding.map(Math.fround));
  await page.getByText("Python", { exact: true }).click();
  execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: await snippet() });
  assert.match(await snippet(), /model="all-MiniLM-L6-v2",\n[^]*☕[^]*dimensions=4,\n    extra_body=\{"truncate": True\}/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await press(page, "Copy");
  await waitForMessage(page, "snippet-message", /Copied/);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await snippet());
});

testPage("errors are shown next to the form that caused them", "#embeddings", async (page) => {
  await page.locator("#embed-texts").fill(`short\n${"long ".repeat(400)}`);
  assert.match(await compare(page), /input\[1\].*256/);
  await page.locator("#embed-truncate").check();
  assert.match(await compare(page), /tokens;/);
  await page.route("**/v1/embeddings", (route) => route.abort());
  await press(page, "Compare");
  await waitForMessage(page, "embed-message", /cannot be reached/);
  for (const [status, body, pattern] of [
    [403, '{"Message":"Forbidden"}', /IAM/],
    [413, '{"message":"Request Too Long"}', /Request Too Long/],
    [413, "", /larger than the server accepts/],
    [500, '{"error":"error of another API","error_type":"Backend"}', /error of another API/],
    [502, "<html>", /status 502/],
  ]) {
    await page.unroute("**/v1/embeddings");
    await page.route("**/v1/embeddings", (route) => route.fulfill({ status, body }));
    await press(page, "Compare");
    await waitForMessage(page, "embed-message", pattern);
  }
  assert.equal(await page.locator("#embed-message.error").count(), 1);
}, { expected: /Failed to load resource/ });

testPage("no text, one text, equal texts and markup are handled", "#embeddings", async (page) => {
  let requests = 0;
  page.on("request", (request) => (requests += request.url().endsWith("/embeddings")));
  await page.locator("#embed-texts").fill(" \n");
  await press(page, "Compare");
  await waitForMessage(page, "embed-message", /at least one text/);
  assert.equal(requests, 0);
  await page.locator("#embed-texts").fill("alone");
  assert.match(await compare(page), /^\d+ tokens;/);
  assert.equal(await page.locator("#map-caption").textContent(), "");
  await page.locator("#embed-texts").fill("same\nsame\nsame");
  assert.match(await compare(page), /\(1\.00\)/);
  await page.locator("#embed-texts").fill(`${HOSTILE}\nmore`);
  await compare(page);
  assert.equal(await page.locator("#similarity-matrix tbody th span").first().textContent(), HOSTILE);
  assert.equal(await page.locator("#panel-embeddings img").count(), 0);
});

testPage("a new request aborts the previous one", "#embeddings", async (page) => {
  await page.route("**/v1/embeddings", () => {}, { times: 1 });
  await press(page, "Compare");
  const [aborted] = await Promise.all([page.waitForEvent("requestfailed"), press(page, "Compare")]);
  assert.match(aborted.failure().errorText, /ABORTED/);
  assert.match(await waitForMessage(page, "embed-message", /token/), /Most similar/);
});

// Search

testPage("search finds the document and marks the best sentence", "#search", async (page) => {
  assert.match(await search(page), /^5 results/);
  const first = page.locator("#results > li").first();
  assert.equal(await first.locator("strong").textContent(), "line 5");
  await first.locator("mark").waitFor();
  assert.match(await first.locator("mark").textContent(), /^A tealight burns for about four hours\.$/);
  const scores = (await texts(page, "#results .score")).map(Number);
  assert.deepEqual(scores, scores.toSorted((a, b) => b - a));
  await page.locator("#query").fill("protecting steel against corroding in salty air");
  await search(page);
  await page.locator("#results mark").first().waitFor();
  assert.equal(await first.locator("strong").textContent(), "line 3");
  assert.deepEqual(await texts(page, "#results > li:first-child b").then((words) => words.sort()), ["corrode", "protects", "steel"]);
});

testPage("the server accepts the largest chunk size that the page offers", "#search", async (page) => {
  const size = page.locator("#chunk-tokens[max]");
  await size.fill(await size.getAttribute("max"));
  assert.match(await search(page), /^5 results/);
});

testPage("files are indexed in chunks that are shown in context", "#search", async (page) => {
  const file = (name, text) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
  const paragraphs = Array.from({ length: 30 }, (_, i) => `Paragraph ${i} tells of ordinary weather 🌦 and of nothing else.`);
  paragraphs.splice(17, 0, "The treasure is buried under the old oak. A map of it hangs in the library.");
  await page.locator("#documents").fill("");
  await page.locator("#chunk-tokens").fill("32");
  await page.locator("#chunk-overlap").fill("0");
  await page.locator("#files").setInputFiles([
    file("long.txt", `\uFEFF${paragraphs.join("\n\n")}`),
    file("some.jsonl", `{"id": 7, "text": "Whales sing to each other.", "metadata": {"year": 1970}}\n\n{"text": "Cats purr."}\n`),
    file("table.csv", `id,text,note\r\na1,"Bread needs ""strong"" flour,\nwater and time.",food\r\n,${HOSTILE.replaceAll('"', "")},\r\n`),
  ]);
  await press(page, "Build index");
  assert.match(await waitForMessage(page, "build-message", /in \d+ chunks/), /^Indexed 5 documents/);
  assert.deepEqual(await texts(page, "#file-list li"), ["long.txt: 1 documentRemove", "some.jsonl: 2 documentsRemove", "table.csv: 2 documentsRemove"]);
  await page.locator("#query").fill("Where is the gold hidden?");
  await search(page);
  const first = page.locator("#results > li").first();
  assert.equal(await first.locator("strong").textContent(), "long.txt");
  await first.locator("mark").waitFor();
  assert.equal(await first.locator("mark").textContent(), "The treasure is buried under the old oak.");
  assert.doesNotMatch(await first.locator(".passage").textContent(), /Paragraph 2 tells/);
  await first.getByRole("button", { name: "Whole document" }).click();
  // Chunk offsets count code points; an emoji is two UTF-16 code units.
  assert.equal(await first.locator(".passage").textContent(), paragraphs.join("\n\n"));
  await page.locator("#query").fill("songs of the sea");
  await search(page);
  assert.equal(await first.locator("strong").textContent(), "7");
  assert.equal(await first.locator(".hint").textContent(), "year: 1970");
  await page.locator("#query").fill("onerror image script");
  await search(page);
  assert.equal(await page.locator("#results img, #results script").count(), 0);
  await page.locator("#query").fill("baking");
  await search(page);
  assert.equal(await first.locator("strong").textContent(), "a1");
  assert.match(await first.locator(".passage").textContent(), /"strong" flour,\nwater/);
  await page.locator("#files").setInputFiles([file("bad.jsonl", '{"text": "fine"}\n{"txt": 1}'), file("good.txt", "Snow falls.")]);
  assert.match(await waitForMessage(page, "build-message", /bad/), /bad\.jsonl, line 2 has no "text"/);
  await page.getByText("good.txt: 1 document").waitFor();
  await drop(page, "dropped.md", "# Tides\n\nThe moon pulls the water.");
  await page.getByText("dropped.md: 1 document").waitFor();
  await page.getByRole("button", { name: "Remove long.txt" }).click();
  await search(page);
  const names = (await texts(page, "#results strong")).join();
  assert.doesNotMatch(names, /long/);
  assert.match(names, /dropped\.md/);
});

async function drop(page, name, text) {
  const dataTransfer = await page.evaluateHandle(([name, text]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([text], name));
    return transfer;
  }, [name, text]);
  await page.dispatchEvent("#build-form", "drop", { dataTransfer });
}

testPage("many documents are sent in several requests, and building can be stopped", "#search", async (page) => {
  let requests = 0;
  page.on("request", (request) => (requests += request.url().endsWith("/documents")));
  await page.locator("#documents").fill(Array.from({ length: 100 }, (_, i) => `Document number ${i} of many.`).join("\n"));
  await press(page, "Build index");
  assert.match(await waitForMessage(page, "build-message", /in 100 chunks/), /^Indexed 100 documents/);
  assert.equal(requests, 4);
  await page.route("**/documents", () => {});
  await press(page, "Build index");
  await page.locator("#build-stop").click();
  assert.equal(await waitForMessage(page, "build-message", /Stopped/), "Stopped.");
  assert.equal(await page.locator("#build-stop").isDisabled(), true);
});

// Transcribe

const KENNEDY = /ask not what your country can do for you/i;

testPage("a recording is transcribed, played, searched and saved", "#transcribe", async (page) => {
  assert.match(await transcribe(page, "jfk.flac"), /\d segments?; \d+\.\d s of speech in/);
  const transcript = (await texts(page, "#segments li > span")).join(" ");
  assert.match(transcript, KENNEDY);

  const audioState = () => page.locator("#audio").evaluate((audio) => ({ time: audio.currentTime, paused: audio.paused }));
  const last = page.locator("#segments li").last();
  const { start, end } = await last.evaluate((item) => item.segment);
  await last.getByRole("button").click();
  await page.waitForFunction((start) => document.getElementById("audio").currentTime > start + 0.05, start);
  assert.equal(await page.locator("#segments .playing").count(), 1);
  assert.equal((await audioState()).paused, false);
  await last.getByRole("button").click();
  assert.equal((await audioState()).paused, true);
  // Playback stops at the end of the segment, before the recording ends.
  const first = page.locator("#segments li").first();
  const stop = await first.evaluate((item) => item.segment.end);
  await first.getByRole("button").click();
  await page.locator("#audio").evaluate((audio, stop) => Object.assign(audio, { currentTime: stop - 1, playbackRate: 2 }), stop);
  await page.waitForFunction(() => document.getElementById("audio").paused);
  const { time } = await audioState();
  assert.ok(time > stop - 0.1 && time < stop + 1 && stop + 1.5 < end, `${time} of ${stop}, ${end}`);

  const saved = async (name) => {
    const [download] = await Promise.all([page.waitForEvent("download"), press(page, name)]);
    return [download.suggestedFilename(), fs.readFileSync(await download.path(), "utf8")];
  };
  const [name, srt] = await saved(".srt");
  assert.equal(name, "jfk.srt");
  assert.match(srt, /^(\d+\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n[^\n]+\n\n)+$/);
  assert.match((await saved(".vtt"))[1], /^WEBVTT\n\n(\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n[^\n]+\n\n)+$/);
  assert.match((await saved(".txt"))[1].replaceAll("\n", " "), KENNEDY);

  await page.locator("#transcript-search-query").fill("serving one's nation");
  await page.locator("#transcript-search-form").getByRole("button").click();
  await waitForMessage(page, "transcript-search-message", /best match first/);
  assert.match(await page.locator("#transcript-search-results li").first().textContent(), /country/);
});

testPage("segments appear one by one, before an error", "#transcribe", async (page) => {
  const event = (value) => `data: ${JSON.stringify(value)}\n\n`;
  const segment = (id, start, end, text) => event({ type: "transcript.text.segment", id: `seg_${id}`, start, end, text });
  const body = segment(0, 0, 2.5, ` ${HOSTILE}`) + segment(1, 3661.0416, 3662, " & so --> on") + event({ error: { message: "the time is up" } });
  await page.route("**/v1/audio/transcriptions", (route) => route.fulfill({ contentType: "text/event-stream", body }));
  await page.locator("#audio-file").setInputFiles(audio("speech.flac"));
  await press(page, "Transcribe");
  assert.equal(await waitForMessage(page, "transcribe-message", /time/), "the time is up");
  assert.deepEqual(await texts(page, "#segments li > span"), [HOSTILE, "& so --> on"]);
  const [download] = await Promise.all([page.waitForEvent("download"), press(page, ".vtt")]);
  assert.match(fs.readFileSync(await download.path(), "utf8"), /&lt;img[^]*01:01:01\.042 --> 01:01:02\.000\n&amp; so --&gt; on\n\n$/);
});

testPage("a microphone recording is transcribed", "#transcribe", async (page) => {
  await press(page, "Record");
  await page.waitForFunction(() => document.getElementById("record-time").textContent >= "0:02" && document.getElementById("record-level").value > 0.01);
  await press(page, "Stop and transcribe");
  assert.match(await waitForMessage(page, "transcribe-message", /segment|No speech|not/), /segment/);
  assert.match((await texts(page, "#segments li > span")).join(" "), /\w+/);
  await page.waitForFunction(() => Number.isFinite(document.getElementById("audio").duration));
  assert.equal(await page.locator("#record").getAttribute("aria-pressed"), "false");
});

testPage("the microphone is requested once and released", "#transcribe", async (page) => {
  await page.evaluate(() => {
    const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.streams = [];
    navigator.mediaDevices.getUserMedia = async (options) => {
      const stream = await getUserMedia(options);
      window.streams.push(stream);
      return stream;
    };
  });
  const states = () => page.evaluate(() => window.streams.flatMap((stream) => stream.getTracks().map((track) => track.readyState)));
  await page.locator("#record").dblclick();
  await page.locator("#record", { hasText: "Stop" }).waitFor();
  assert.deepEqual(await states(), ["live"]);
  await press(page, "Stop and transcribe");
  await page.locator("#record", { hasText: "Record" }).waitFor();
  assert.deepEqual(await states(), ["ended"]);
  await page.evaluate(() => {
    window.MediaRecorder = class {
      constructor() {
        throw new Error("no recorder");
      }
    };
  });
  await press(page, "Record");
  await waitForMessage(page, "transcribe-message", /no recorder/);
  assert.deepEqual(await states(), ["ended", "ended"]);
});

testPage("a denied microphone shows an explanation", "#transcribe", async (page) => {
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
  });
  await press(page, "Record");
  assert.match(await waitForMessage(page, "transcribe-message", /microphone/), /does not allow this page/);
  // Browsers have no mediaDevices over plain HTTP.
  await page.evaluate(() => Object.defineProperty(navigator, "mediaDevices", { value: undefined }));
  await press(page, "Record");
  await waitForMessage(page, "transcribe-message", /only over https/);
});

testPage("an invalid or too large recording is rejected", "#transcribe", async (page) => {
  await page.locator("#audio-file").setInputFiles({ name: "invalid.wav", mimeType: "audio/wav", buffer: Buffer.from("not audio") });
  await press(page, "Transcribe");
  await page.locator("#transcribe-message.error").waitFor();
  fs.writeFileSync(`${OUT}/big.wav`, Buffer.alloc(27e6));
  await page.locator("#audio-file").setInputFiles(`${OUT}/big.wav`);
  await press(page, "Transcribe");
  assert.match(await waitForMessage(page, "transcribe-message", /accepts/), /27 MB; the server accepts at most 26 MB/);
}, { expected: /Failed to load resource/ });

// Generate

const completion = (page) => page.locator("#completion-text span").last().textContent();

testPage("a fixed seed gives the same completion", "#generate", async (page) => {
  await page.locator("#max-tokens").fill("24");
  const completions = [];
  for (const seed of ["7", "7", "8"]) {
    await page.locator("#seed").fill(seed);
    assert.match(await generate(page, "Generate"), /token or time limit/);
    completions.push(await completion(page));
  }
  assert.equal(completions[0], completions[1]);
  assert.notEqual(completions[0], completions[2]);
  assert.equal(await page.locator("#token-count").textContent(), "24");
  assert.ok(Number(await page.locator("#tokens-per-second").textContent()) > 1);
  assert.match(await page.locator("#time-to-first-token").textContent(), /^[\d.]+ m?s$/);
});

testPage("generation can be stopped and started again", "#generate", async (page) => {
  await page.locator("#max-tokens").fill("2000");
  await page.locator("#seed").fill("3");
  await press(page, "Generate");
  await page.waitForFunction(() => document.getElementById("completion-text").textContent.length > 120);
  await page.locator("#generate-stop").click();
  assert.equal(await waitForMessage(page, "generate-message", /Stopped/), "Stopped.");
  const stopped = await completion(page);
  await page.waitForTimeout(300);
  assert.equal(await completion(page), stopped);
  await page.locator("#max-tokens").fill("4");
  assert.match(await generate(page, "Generate"), /^(Done|Stopped at the token or time limit)\.$/);
});

testPage("chat sends the whole conversation", "#generate", async (page) => {
  await page.getByText("Chat", { exact: true }).click();
  await page.locator("#max-tokens").fill("24");
  await page.locator("#temperature").fill("0");
  const requests = [];
  page.on("request", (request) => request.method() === "POST" && requests.push(request.postDataJSON()));
  await page.locator("#chat-message").press("Enter");
  await waitForMessage(page, "generate-message", /^(Done|Stopped at the token or time limit)\.$/);
  await page.locator("#chat-message").fill(HOSTILE);
  await generate(page, "Send");
  const shown = await texts(page, "#chat-log li");
  assert.equal(shown.length, 4);
  assert.match(shown[1], /^Assistant: .{10}/s);
  assert.equal(shown[2], `You: ${HOSTILE}`);
  assert.deepEqual(requests[1].messages.map((message) => message.role), ["user", "assistant", "user"]);
  assert.equal(`Assistant: ${requests[1].messages[1].content}`, shown[1]);
  assert.equal(requests[1].temperature, 0);
  assert.equal(await page.locator("#chat-log img").count(), 0);
  // A failed message can be sent again.
  await page.route("**/v1/chat/completions", (route) => route.abort());
  await page.locator("#chat-message").fill("again");
  await press(page, "Send");
  await waitForMessage(page, "generate-message", /cannot be reached/);
  assert.equal(await page.locator("#chat-message").inputValue(), "again");
  assert.equal(await page.locator("#chat-log li").count(), 4);
  await press(page, "New chat");
  assert.equal(await page.locator("#chat-log li").count(), 0);
}, { expected: /Failed to load resource/ });

// Status, API keys and installed models

testPage("the status tab shows the status of the server", "#status", async (page) => {
  await page.locator("#status").waitFor();
  const status = await (await fetch(`${URL_}/status`)).json();
  const shown = await page.locator("#panel-status").textContent();
  for (const part of [status.version, status.isa, ...status.models.flatMap((model) => [model.name, model.license])]) {
    assert.ok(shown.includes(part), part);
  }
  assert.deepEqual(await texts(page, "#status-models strong"), status.models.map((model) => model.name));
  assert.match(shown, /MB/);
  const requests = () => page.locator("#status-requests dd").first().textContent().then((text) => Number(text.replace(",", "")));
  const first = await requests();
  await fetch(`${URL_}/v1/embeddings`, { method: "POST", body: '{"input": "one more"}' });
  await press(page, "Refresh");
  await page.waitForFunction((first) => Number(document.querySelector("#status-requests dd").textContent.replace(",", "")) > first, first);
});

testPage("an API key is requested, rejected, accepted and stored", "#embeddings", async (page) => {
  await page.locator("#key-form").waitFor();
  await page.locator("#key").fill("schlüssel");
  await press(page, "Use this key");
  await waitForMessage(page, "key-message", /only ASCII/);
  await page.locator("#key").fill("wrong");
  await press(page, "Use this key");
  await waitForMessage(page, "key-message", /key was rejected/);
  assert.match(await compare(page), /requires an API key/);
  await page.locator("#key").fill("sesame");
  await page.locator("#key").press("Enter");
  await page.locator("#key-form").waitFor({ state: "hidden" });
  assert.match(await compare(page), /Most similar/);
  assert.match(await page.locator("#snippet").textContent(), /Bearer \$TEALIGHT_API_KEY/);
  assert.doesNotMatch(await page.content(), /sesame/);
  await page.reload();
  assert.match(await compare(page), /Most similar/);
  await press(page, "Change key");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.equal(await page.locator("#key").inputValue(), "");
}, { base: URL_WITH_KEY, expected: /status of 401/ });

testPage("the server's index is searched", "#search", async (page) => {
  await page.locator("#key").fill("sesame");
  await page.locator("#key").press("Enter");
  await page.locator("#server-index", { hasText: /rows\)/ }).waitFor();
  assert.equal(await page.locator("#build-form").isVisible(), false);
  await page.locator("#query").fill("a pet asleep");
  await search(page);
  const first = page.locator("#results > li").first();
  assert.equal(await first.locator("strong").textContent(), "cat");
  await first.locator("mark").waitFor();
  assert.equal(await first.locator("mark").textContent(), "The cat sleeps on the sofa.");
  assert.equal(await first.locator(".hint").textContent(), "year: 2020");
  await page.locator("#mode").selectOption("lexical");
  await page.locator("#query").fill("lentils");
  await search(page);
  assert.deepEqual(await texts(page, "#results strong"), ["soup"]);
  await page.getByText("Your documents").click();
  assert.equal(await page.locator("#build-form").isVisible(), true);
}, { base: URL_WITH_KEY, expected: /status of 401/ });

testPage("a missing model disables its tab and is explained", "", async (page) => {
  for (const [tab, model] of [["Transcribe", "whisper-base"], ["Generate", "smollm2-135m-instruct"]]) {
    await page.getByRole("tab", { name: tab }).click();
    assert.match(await page.locator(`#panel-${tab.toLowerCase()} .missing-model`).textContent(), new RegExp(`tealight pull ${model}`));
    assert.equal(await page.getByRole("tabpanel").getByRole("button", { name: /^(Transcribe|Generate)$/ }).isDisabled(), true);
  }
}, { before: (page) => withStatus(page, (status) => ({ ...status, models: status.models.filter((model) => model.kind === "embedding") })) });

testPage("requests name the model if there is no default", "#generate", async (page) => {
  const [sent] = await Promise.all([page.waitForRequest("**/completions"), press(page, "Generate")]);
  assert.equal(sent.postDataJSON().model, "smollm2-135m-instruct");
}, { before: (page) => withStatus(page, (status) => ({ ...status, models: status.models.map((model) => ({ ...model, default: false })) })) });

/** Changes the response of GET /status. */
async function withStatus(page, change) {
  await page.route("**/status", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: change(await response.json()) });
  });
}

// Below a path, behind a proxy that buffers responses

for (const slash of ["", "/"]) {
  test(`the page works below a path${slash && " with a trailing slash"}`, async () => {
    const { server, url } = await bufferingProxy(URL_, "/lambda-url/tealight");
    const { page, problems } = await open(browser, `${url}${slash}#generate`);
    try {
      if (slash) await page.getByText("Prompt", { exact: true }).waitFor();
      else await useAllTabs(page);
      const link = await page.evaluate(() => new URL(document.querySelector("[data-route]").href).pathname);
      assert.equal(link, "/lambda-url/tealight/openapi.json");
      assert.deepEqual(problems, []);
    } finally {
      await page.context().close();
      server.close();
    }
  });
}

async function useAllTabs(page) {
  await page.locator("#max-tokens").fill("8");
  await page.locator("#seed").fill("1");
  assert.match(await generate(page, "Generate"), /^(Done|Stopped at the token or time limit)\.$/);
  assert.ok((await completion(page)).length > 8);
  await page.getByRole("tab", { name: "Embeddings" }).click();
  assert.match(await compare(page), /Most similar/);
  assert.match(await page.locator("#snippet").textContent(), /lambda-url\/tealight\/v1\/embeddings/);
  await page.getByRole("tab", { name: "Transcribe" }).click();
  await transcribe(page, "speech.flac");
  assert.match((await texts(page, "#segments li > span")).join(" "), /fellow/);
}

// Accessibility

testPage("tabs work by keyboard and have URLs", "#search", async (page) => {
  const selected = () => page.locator('[role="tab"][aria-selected="true"]').textContent();
  assert.equal(await selected(), "Search");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.getByRole("tab", { name: "Search" }).focus();
  for (const [key, name] of [["ArrowRight", "Transcribe"], ["End", "Status"], ["ArrowRight", "Embeddings"], ["ArrowLeft", "Status"], ["Home", "Embeddings"]]) {
    await page.keyboard.press(key);
    assert.equal(await selected(), name);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), name);
    assert.equal(new URL(page.url()).hash, `#${name.toLowerCase()}`);
    assert.equal(await page.getByRole("tabpanel").count(), 1);
  }
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "panel-embeddings");
  await page.evaluate(() => (location.hash = "#generate"));
  await page.getByRole("tab", { name: "Generate", selected: true }).waitFor();
});

testPage("all controls have an accessible name and ids are consistent", "", async (page) => {
  const unnamed = await page.evaluate(() => {
    const isNamed = (node) => node.labels?.length || node.getAttribute("aria-label") || node.textContent.trim();
    return [...document.querySelectorAll("input, select, textarea, button, progress, meter")].filter((node) => !isNamed(node)).map((node) => node.id);
  });
  assert.deepEqual(unnamed, []);
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((node) => node.id));
  assert.equal(new Set(ids).size, ids.length);
  const referenced = await page.evaluate(() =>
    [...document.querySelectorAll("*")].flatMap((node) => ["for", "aria-labelledby", "aria-describedby", "aria-controls"].map((name) => node.getAttribute(name)).filter(Boolean)),
  );
  assert.deepEqual(referenced.filter((id) => !ids.includes(id)), []);
});

/** Produces results in each tab. */
async function fillAllTabs(page) {
  const openTab = (tab) => page.getByRole("tab", { name: tab }).click();
  await compare(page);
  await openTab("Search");
  await search(page);
  await page.locator("#results mark").first().waitFor();
  await openTab("Transcribe");
  await transcribe(page, "jfk.flac");
  await page.locator("#transcript-search-query").fill("your nation");
  await page.locator("#transcript-search-form").getByRole("button").click();
  await waitForMessage(page, "transcript-search-message", /best match first/);
  await openTab("Generate");
  await page.locator("#max-tokens").fill("60");
  await page.locator("#seed").fill("3");
  await generate(page, "Generate");
}

testPage("text has enough contrast and the page fits a phone", "#embeddings", async (page) => {
  await fillAllTabs(page);
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 320], ["dark", 320]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    for (const tab of TABS) {
      await page.getByRole("tab", { name: new RegExp(tab, "i") }).click();
      await page.mouse.move(0, 0);
      if (tab === "status") await page.locator("#status").waitFor();
      const name = `${tab} ${colorScheme} ${width}`;
      const { poor, checked } = await page.evaluate(poorContrasts);
      assert.deepEqual([poor, checked > 20], [[], true], name);
      const excess = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(excess <= 0, `${name}: ${excess} px too wide`);
      await page.screenshot({ path: `${OUT}/${tab}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await page.getByRole("tab", { name: "Generate" }).click();
  await page.getByText("Chat", { exact: true }).click();
  await page.locator("#max-tokens").fill("30");
  await generate(page, "Send");
  const { poor } = await page.evaluate(poorContrasts);
  assert.deepEqual(poor, []);
  // The check itself detects poor contrast.
  await page.locator("#chat-hint").evaluate((node) => node.style.setProperty("color", "rgb(120 100 90 / 0.5)"));
  assert.match((await page.evaluate(poorContrasts)).poor.join(), /^[12]\.\d\d P "Enter sends[^,]*, Shift[^"]*"$/);
  await page.locator("#chat-hint").evaluate((node) => node.style.removeProperty("color"));
  await page.screenshot({ path: `${OUT}/chat-dark-320.png`, fullPage: true });
});

test("the content security policy allows no external resources", async () => {
  const response = await fetch(URL_, { headers: { accept: "text/html" } });
  const policy = response.headers.get("content-security-policy");
  assert.match(response.headers.get("content-type"), /^text\/html/);
  for (const part of ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), policy);
  }
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
  const html = await response.text();
  assert.doesNotMatch(html, / (on\w+|style)=|src="|@import|https?:\/\/(?!www\.w3\.org)/);
});

// The page in a browser, over the real server with real models: tests/check_page starts both.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { launch, open, said } from "./browser.mjs";
import { poorContrasts } from "./contrast.mjs";
import { HOSTILE, audio, frontDoor, microphone } from "./fixtures.mjs";

const { TEALIGHT_URL: URL_, TEALIGHT_KEYED_URL: KEYED, TEALIGHT_PAGE_OUT: OUT } = process.env;
const TABS = ["embed", "search", "speak", "write", "status"];
let browser;

before(async () => {
  browser = await launch(microphone(`${OUT}/microphone.wav`));
});

after(() => browser.close());

/** A test in a page of its own, in which nothing may go wrong but what is expected. */
function inPage(name, path, act, { expected = /^$/, base = URL_, ...options } = {}) {
  test(name, async () => {
    const { page, problems } = await open(browser, `${base}/${path}`, options);
    try {
      await act(page);
      assert.equal(await page.evaluate(() => document.title.startsWith("tealight")), true, "a script of a text has run");
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
  return said(page, "embed-note", /token|must|limit|cannot|key|larger|refused|busy|most/);
};

const find = async (page) => {
  await page.locator("#find-form").getByRole("button", { name: "Search" }).click();
  return said(page, "find-note", /result|There is no|embedded/);
};

const transcribe = async (page, name) => {
  await page.locator("#audio-file").setInputFiles(audio(name));
  await press(page, "Transcribe");
  return said(page, "speak-note", /segment|Nothing|not|larger|takes/);
};

const write = async (page, button) => {
  await press(page, button);
  return said(page, "write-note", /Ended|Stopped|must|empty|needs/);
};

// Embed

inPage("alike texts have the higher similarity", "#embed", async (page) => {
  assert.match(await compare(page), /Most alike are \d and \d, with 0\.\d\d\. \d+ tokens; \d+ ms of inference/);
  const rows = await page.locator("#heat tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(1).map((c) => Number(c.textContent))));
  assert.equal(rows.length, 6);
  for (const i of rows.keys()) {
    assert.equal(rows[i][i], 1);
    const others = rows[i].map((score, j) => (j === i ? -1 : score));
    // They stand in pairs.
    assert.equal(others.indexOf(Math.max(...others)), i ^ 1, `row ${i}: ${rows[i]}`);
  }
  assert.equal(await page.locator("#heat th[scope=row]").count(), 6);
  const titles = await texts(page, "#map title");
  assert.deepEqual([titles.length, titles[2]], [6, "3: How do I reset my password?"]);
  const at = await page.locator("#map circle").evaluateAll((dots) => dots.map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value]));
  const far = (i, j) => Math.hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]);
  assert.ok(far(0, 1) < far(0, 2) && far(2, 3) < far(2, 4) && far(4, 5) < far(4, 0), `${at}`);
});

inPage("the code is the request", "#embed", async (page) => {
  await page.locator("#embed-texts").fill(`It's a "test" of $HOME, \\n and \`quotes\`\nzwei Zeilen ☕`);
  await page.locator("#embed-dimensions").fill("4");
  await page.locator("#embed-truncate").check();
  const code = () => page.locator("#code").textContent();
  const reply = JSON.parse(execFileSync("bash", ["-c", await code()], { stdio: ["ignore", "pipe", "ignore"] }));
  assert.deepEqual(reply.data.map((row) => row.embedding.length), [4, 4]);
  await page.getByText("JavaScript", { exact: true }).click();
  const printed = execFileSync("node", ["--input-type=module", "-e", await code()], { encoding: "utf8" });
  assert.deepEqual(printed.match(/-?\d+\.\d+/g).map(Number).map(Math.fround), reply.data[0].embedding.map(Math.fround));
  await page.getByText("Python", { exact: true }).click();
  execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: await code() });
  assert.match(await code(), /model="all-MiniLM-L6-v2",\n[^]*☕[^]*dimensions=4,\n    extra_body=\{"truncate": True\}/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await press(page, "Copy");
  await said(page, "code-note", /Copied/);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await code());
});

inPage("errors of the function stand where they were caused", "#embed", async (page) => {
  await page.locator("#embed-texts").fill(`short\n${"long ".repeat(400)}`);
  assert.match(await compare(page), /input\[1\].*256/);
  await page.locator("#embed-truncate").check();
  assert.match(await compare(page), /tokens;/);
  await page.route("**/v1/embeddings", (route) => route.abort());
  await press(page, "Compare");
  await said(page, "embed-note", /cannot be reached/);
  for (const [status, body, pattern] of [
    [403, '{"Message":"Forbidden"}', /IAM/],
    [413, '{"message":"Request Too Long"}', /Request Too Long/],
    [413, "", /larger than the function takes/],
    [500, '{"error":"of another family","error_type":"Backend"}', /of another family/],
    [502, "<html>", /status 502/],
  ]) {
    await page.unroute("**/v1/embeddings");
    await page.route("**/v1/embeddings", (route) => route.fulfill({ status, body }));
    await press(page, "Compare");
    await said(page, "embed-note", pattern);
  }
  assert.equal(await page.locator("#embed-note.error").count(), 1);
}, { expected: /Failed to load resource/ });

inPage("one text, equal texts, and markup", "#embed", async (page) => {
  let requests = 0;
  page.on("request", (request) => (requests += request.url().endsWith("/embeddings")));
  await page.locator("#embed-texts").fill(" \n");
  await press(page, "Compare");
  await said(page, "embed-note", /no text yet/);
  assert.equal(requests, 0);
  await page.locator("#embed-texts").fill("alone");
  assert.match(await compare(page), /^\d+ tokens;/);
  assert.equal(await page.locator("#map-caption").textContent(), "");
  await page.locator("#embed-texts").fill("same\nsame\nsame");
  assert.match(await compare(page), /with 1\.00/);
  await page.locator("#embed-texts").fill(`${HOSTILE}\nmore`);
  await compare(page);
  assert.equal(await page.locator("#heat tbody th span").first().textContent(), HOSTILE);
  assert.equal(await page.locator("#panel-embed img").count(), 0);
});

inPage("a new request ends the one before", "#embed", async (page) => {
  await page.route("**/v1/embeddings", () => {}, { times: 1 });
  await press(page, "Compare");
  const [gone] = await Promise.all([page.waitForEvent("requestfailed"), press(page, "Compare")]);
  assert.match(gone.failure().errorText, /ABORTED/);
  assert.match(await said(page, "embed-note", /token/), /Most alike/);
});

// Search

inPage("a search finds the document and marks the sentence", "#search", async (page) => {
  assert.match(await find(page), /^5 results/);
  const first = page.locator("#found > li").first();
  assert.equal(await first.locator("strong").textContent(), "line 5");
  await first.locator("mark").waitFor();
  assert.match(await first.locator("mark").textContent(), /^A tealight burns for about four hours\.$/);
  const scores = (await texts(page, "#found .score")).map(Number);
  assert.deepEqual(scores, scores.toSorted((a, b) => b - a));
  await page.locator("#query").fill("protecting steel against corroding in salty air");
  await find(page);
  await page.locator("#found mark").first().waitFor();
  assert.equal(await first.locator("strong").textContent(), "line 3");
  assert.deepEqual(await texts(page, "#found > li:first-child b").then((words) => words.sort()), ["corrode", "protects", "steel"]);
});

inPage("files are documents, in parts that are shown in them", "#search", async (page) => {
  const file = (name, text) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
  const pages = Array.from({ length: 30 }, (_, i) => `Paragraph ${i} tells of ordinary weather 🌦 and of nothing else.`);
  pages.splice(17, 0, "The treasure is buried under the old oak. A map of it hangs in the library.");
  await page.locator("#documents").fill("");
  await page.locator("#chunk-tokens").fill("32");
  await page.locator("#chunk-overlap").fill("0");
  await page.locator("#files").setInputFiles([
    file("long.txt", `\uFEFF${pages.join("\n\n")}`),
    file("some.jsonl", `{"id": 7, "text": "Whales sing to each other.", "metadata": {"year": 1970}}\n\n{"text": "Cats purr."}\n`),
    file("table.csv", `id,text,note\r\na1,"Bread needs ""strong"" flour,\nwater and time.",food\r\n,${HOSTILE.replaceAll('"', "")},\r\n`),
  ]);
  await press(page, "Build index");
  assert.match(await said(page, "build-note", /in \d+ parts/), /^5 documents/);
  assert.deepEqual(await texts(page, "#file-list li"), ["long.txt: 1 documentRemove", "some.jsonl: 2 documentsRemove", "table.csv: 2 documentsRemove"]);
  await page.locator("#query").fill("Where is the gold hidden?");
  await find(page);
  const first = page.locator("#found > li").first();
  assert.equal(await first.locator("strong").textContent(), "long.txt");
  await first.locator("mark").waitFor();
  assert.equal(await first.locator("mark").textContent(), "The treasure is buried under the old oak.");
  assert.doesNotMatch(await first.locator(".passage").textContent(), /Paragraph 2 tells/);
  await first.getByRole("button", { name: "Whole document" }).click();
  // Parts are counted in characters, of which emoji are two units.
  assert.equal(await first.locator(".passage").textContent(), pages.join("\n\n"));
  await page.locator("#query").fill("songs of the sea");
  await find(page);
  assert.equal(await first.locator("strong").textContent(), "7");
  assert.equal(await first.locator(".hint").textContent(), "year: 1970");
  await page.locator("#query").fill("onerror image script");
  await find(page);
  assert.equal(await page.locator("#found img, #found script").count(), 0);
  await page.locator("#query").fill("baking");
  await find(page);
  assert.equal(await first.locator("strong").textContent(), "a1");
  assert.match(await first.locator(".passage").textContent(), /"strong" flour,\nwater/);
  await page.locator("#files").setInputFiles([file("bad.jsonl", '{"text": "fine"}\n{"txt": 1}'), file("good.txt", "Snow falls.")]);
  assert.match(await said(page, "build-note", /bad/), /bad\.jsonl, line 2 has no "text"/);
  await page.getByText("good.txt: 1 document").waitFor();
  await drop(page, "dropped.md", "# Tides\n\nThe moon pulls the water.");
  await page.getByText("dropped.md: 1 document").waitFor();
  await page.getByRole("button", { name: "Remove long.txt" }).click();
  await find(page);
  const names = (await texts(page, "#found strong")).join();
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

inPage("many documents go in several requests, and can be stopped", "#search", async (page) => {
  let requests = 0;
  page.on("request", (request) => (requests += request.url().endsWith("/documents")));
  await page.locator("#documents").fill(Array.from({ length: 100 }, (_, i) => `Document number ${i} of many.`).join("\n"));
  await press(page, "Build index");
  assert.match(await said(page, "build-note", /in 100 parts/), /^100 documents/);
  assert.equal(requests, 4);
  await page.route("**/documents", () => {});
  await press(page, "Build index");
  await page.locator("#build-stop").click();
  assert.equal(await said(page, "build-note", /Stopped/), "Stopped.");
  assert.equal(await page.locator("#build-stop").isDisabled(), true);
});

// Speak

const KENNEDY = /ask not what your country can do for you/i;

inPage("a recording is heard, played, searched and saved", "#speak", async (page) => {
  assert.match(await transcribe(page, "jfk.flac"), /\d segments?; \d+\.\d s of speech in/);
  const heard = (await texts(page, "#segments li > span")).join(" ");
  assert.match(heard, KENNEDY);

  const audioState = () => page.locator("#audio").evaluate((audio) => ({ time: audio.currentTime, paused: audio.paused }));
  const last = page.locator("#segments li").last();
  const { start, end } = await last.evaluate((item) => item.segment);
  await last.getByRole("button").click();
  await page.waitForFunction((start) => document.getElementById("audio").currentTime > start + 0.05, start);
  assert.equal(await page.locator("#segments .playing").count(), 1);
  assert.equal((await audioState()).paused, false);
  await last.getByRole("button").click();
  assert.equal((await audioState()).paused, true);
  // A segment ends by itself, before the recording does.
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

  await page.locator("#said-query").fill("serving one's nation");
  await page.locator("#said-form").getByRole("button").click();
  await said(page, "said-note", /best first/);
  assert.match(await page.locator("#said li").first().textContent(), /country/);
});

inPage("segments come one by one", "#speak", async (page) => {
  const event = (value) => `data: ${JSON.stringify(value)}\n\n`;
  const segment = (id, start, end, text) => event({ type: "transcript.text.segment", id: `seg_${id}`, start, end, text });
  const body = segment(0, 0, 2.5, ` ${HOSTILE}`) + segment(1, 3661.0416, 3662, " & so --> on") + event({ error: { message: "the time is up" } });
  await page.route("**/v1/audio/transcriptions", (route) => route.fulfill({ contentType: "text/event-stream", body }));
  await page.locator("#audio-file").setInputFiles(audio("speech.flac"));
  await press(page, "Transcribe");
  assert.equal(await said(page, "speak-note", /time/), "the time is up");
  assert.deepEqual(await texts(page, "#segments li > span"), [HOSTILE, "& so --> on"]);
  const [download] = await Promise.all([page.waitForEvent("download"), press(page, ".vtt")]);
  assert.match(fs.readFileSync(await download.path(), "utf8"), /&lt;img[^]*01:01:01\.042 --> 01:01:02\.000\n&amp; so --&gt; on\n\n$/);
});

inPage("the microphone is recorded and heard", "#speak", async (page) => {
  await press(page, "Record");
  await page.waitForFunction(() => document.getElementById("record-time").textContent >= "0:02" && document.getElementById("record-level").value > 0.01);
  await press(page, "Stop and transcribe");
  assert.match(await said(page, "speak-note", /segment|Nothing|not/), /segment/);
  assert.match((await texts(page, "#segments li > span")).join(" "), /\w+/);
  await page.waitForFunction(() => Number.isFinite(document.getElementById("audio").duration));
  assert.equal(await page.locator("#record").getAttribute("aria-pressed"), "false");
});

inPage("the microphone is asked for once, and let go", "#speak", async (page) => {
  await page.evaluate(() => {
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.streams = [];
    navigator.mediaDevices.getUserMedia = async (options) => {
      const stream = await ask(options);
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
  await said(page, "speak-note", /no recorder/);
  assert.deepEqual(await states(), ["ended", "ended"]);
});

inPage("a microphone that is refused is told of", "#speak", async (page) => {
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
  });
  await press(page, "Record");
  assert.match(await said(page, "speak-note", /microphone/), /does not let this page/);
  // Over http there is none.
  await page.evaluate(() => Object.defineProperty(navigator, "mediaDevices", { value: undefined }));
  await press(page, "Record");
  await said(page, "speak-note", /https only/);
});

inPage("what is no recording is refused", "#speak", async (page) => {
  await page.locator("#audio-file").setInputFiles({ name: "no.wav", mimeType: "audio/wav", buffer: Buffer.from("no recording") });
  await press(page, "Transcribe");
  await page.locator("#speak-note.error").waitFor();
  fs.writeFileSync(`${OUT}/big.wav`, Buffer.alloc(27e6));
  await page.locator("#audio-file").setInputFiles(`${OUT}/big.wav`);
  await press(page, "Transcribe");
  assert.match(await said(page, "speak-note", /takes/), /27 MB, the function takes 26 MB/);
}, { expected: /Failed to load resource/ });

// Write

const story = (page) => page.locator("#story-text span").last().textContent();

inPage("the same seed writes the same story", "#write", async (page) => {
  await page.locator("#max-tokens").fill("24");
  const written = [];
  for (const seed of ["7", "7", "8"]) {
    await page.locator("#seed").fill(seed);
    assert.match(await write(page, "Write"), /limit of tokens/);
    written.push(await story(page));
  }
  assert.equal(written[0], written[1]);
  assert.notEqual(written[0], written[2]);
  assert.equal(await page.locator("#token-count").textContent(), "24");
  assert.ok(Number(await page.locator("#rate").textContent()) > 1);
  assert.match(await page.locator("#first-token").textContent(), /^[\d.]+ m?s$/);
});

inPage("a text can be stopped, and another begun", "#write", async (page) => {
  await page.locator("#max-tokens").fill("2000");
  await page.locator("#seed").fill("3");
  await press(page, "Write");
  await page.waitForFunction(() => document.getElementById("story-text").textContent.length > 120);
  await page.locator("#write-stop").click();
  assert.equal(await said(page, "write-note", /Stopped/), "Stopped.");
  const stopped = await story(page);
  await page.waitForTimeout(300);
  assert.equal(await story(page), stopped);
  await page.locator("#max-tokens").fill("4");
  assert.match(await write(page, "Write"), /Ended/);
});

inPage("a chat remembers", "#write", async (page) => {
  await page.getByText("A chat", { exact: true }).click();
  await page.locator("#max-tokens").fill("24");
  await page.locator("#temperature").fill("0");
  const asked = [];
  page.on("request", (request) => request.method() === "POST" && asked.push(request.postDataJSON()));
  await page.locator("#chat-message").press("Enter");
  await said(page, "write-note", /Ended/);
  await page.locator("#chat-message").fill(HOSTILE);
  await write(page, "Send");
  const shown = await texts(page, "#chat-log li");
  assert.equal(shown.length, 4);
  assert.match(shown[1], /^Answer: .{10}/s);
  assert.equal(shown[2], `You: ${HOSTILE}`);
  assert.deepEqual(asked[1].messages.map((message) => message.role), ["user", "assistant", "user"]);
  assert.equal(`Answer: ${asked[1].messages[1].content}`, shown[1]);
  assert.equal(asked[1].temperature, 0);
  assert.equal(await page.locator("#chat-log img").count(), 0);
  // What failed can be sent again.
  await page.route("**/v1/chat/completions", (route) => route.abort());
  await page.locator("#chat-message").fill("again");
  await press(page, "Send");
  await said(page, "write-note", /cannot be reached/);
  assert.equal(await page.locator("#chat-message").inputValue(), "again");
  assert.equal(await page.locator("#chat-log li").count(), 4);
  await press(page, "New chat");
  assert.equal(await page.locator("#chat-log li").count(), 0);
}, { expected: /Failed to load resource/ });

// Status, keys, and what a function has

inPage("the status is that of the function", "#status", async (page) => {
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

inPage("a key is asked for, refused, accepted and kept", "#embed", async (page) => {
  await page.locator("#key-form").waitFor();
  await page.locator("#key").fill("schlüssel");
  await press(page, "Use this key");
  await said(page, "key-note", /beyond ASCII/);
  await page.locator("#key").fill("wrong");
  await press(page, "Use this key");
  await said(page, "key-note", /refused this key/);
  assert.match(await compare(page), /asks for an API key/);
  await page.locator("#key").fill("sesame");
  await page.locator("#key").press("Enter");
  await page.locator("#key-form").waitFor({ state: "hidden" });
  assert.match(await compare(page), /Most alike/);
  assert.match(await page.locator("#code").textContent(), /Bearer \$TEALIGHT_API_KEY/);
  assert.doesNotMatch(await page.content(), /sesame/);
  await page.reload();
  assert.match(await compare(page), /Most alike/);
  await press(page, "Change key");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.equal(await page.locator("#key").inputValue(), "");
}, { base: KEYED, expected: /status of 401/ });

inPage("the function's own index is searched", "#search", async (page) => {
  await page.locator("#key").fill("sesame");
  await page.locator("#key").press("Enter");
  await page.locator("#source-own", { hasText: /documents\)/ }).waitFor();
  assert.equal(await page.locator("#build-form").isVisible(), false);
  await page.locator("#query").fill("a pet asleep");
  await find(page);
  const first = page.locator("#found > li").first();
  assert.equal(await first.locator("strong").textContent(), "cat");
  await first.locator("mark").waitFor();
  assert.equal(await first.locator("mark").textContent(), "The cat sleeps on the sofa.");
  assert.equal(await first.locator(".hint").textContent(), "year: 2020");
  await page.locator("#mode").selectOption("words");
  await page.locator("#query").fill("lentils");
  await find(page);
  assert.deepEqual(await texts(page, "#found strong"), ["soup"]);
  await page.getByText("Your documents").click();
  assert.equal(await page.locator("#build-form").isVisible(), true);
}, { base: KEYED, expected: /status of 401/ });

inPage("what the function has no model for is said", "", async (page) => {
  for (const [tab, word] of [["Speak", "whisper-base"], ["Write", "smollm2-135m-instruct"]]) {
    await page.getByRole("tab", { name: tab }).click();
    assert.match(await page.locator(`#panel-${tab.toLowerCase()} .missing`).textContent(), new RegExp(`tealight pull ${word}`));
    assert.equal(await page.getByRole("tabpanel").getByRole("button", { name: /^(Transcribe|Write)$/ }).isDisabled(), true);
  }
}, { before: (page) => withStatus(page, (status) => ({ ...status, models: status.models.filter((model) => model.kind === "embedding") })) });

inPage("a model is named where no other stands for it", "#write", async (page) => {
  const [sent] = await Promise.all([page.waitForRequest("**/completions"), press(page, "Write")]);
  assert.equal(sent.postDataJSON().model, "smollm2-135m-instruct");
}, { before: (page) => withStatus(page, (status) => ({ ...status, models: status.models.map((model) => ({ ...model, default: false })) })) });

/** The page with another status of the function. */
async function withStatus(page, change) {
  await page.route("**/status", async (route) => {
    const reply = await route.fetch();
    await route.fulfill({ response: reply, json: change(await reply.json()) });
  });
}

// Below a path, behind a door that streams nothing

for (const slash of ["", "/"]) {
  test(`the page works below a path${slash && " with a slash"}`, async () => {
    const { server, url } = await frontDoor(URL_, "/lambda-url/tealight");
    const { page, problems } = await open(browser, `${url}${slash}#write`);
    try {
      if (slash) await page.getByText("It begins with").waitFor();
      else await useAll(page);
      const link = await page.evaluate(() => new URL(document.querySelector("[data-route]").href).pathname);
      assert.equal(link, "/lambda-url/tealight/openapi.json");
      assert.deepEqual(problems, []);
    } finally {
      await page.context().close();
      server.close();
    }
  });
}

async function useAll(page) {
  await page.locator("#max-tokens").fill("8");
  await page.locator("#seed").fill("1");
  assert.match(await write(page, "Write"), /Ended/);
  assert.ok((await story(page)).length > 8);
  await page.getByRole("tab", { name: "Embed" }).click();
  assert.match(await compare(page), /Most alike/);
  assert.match(await page.locator("#code").textContent(), /lambda-url\/tealight\/v1\/embeddings/);
  await page.getByRole("tab", { name: "Speak" }).click();
  await transcribe(page, "speech.flac");
  assert.match((await texts(page, "#segments li > span")).join(" "), /fellow/);
}

// For everyone

inPage("tabs work by keyboard, and have addresses", "#search", async (page) => {
  const selected = () => page.locator('[role="tab"][aria-selected="true"]').textContent();
  assert.equal(await selected(), "Search");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.getByRole("tab", { name: "Search" }).focus();
  for (const [key, name] of [["ArrowRight", "Speak"], ["End", "Status"], ["ArrowRight", "Embed"], ["ArrowLeft", "Status"], ["Home", "Embed"]]) {
    await page.keyboard.press(key);
    assert.equal(await selected(), name);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), name);
    assert.equal(new URL(page.url()).hash, `#${name.toLowerCase()}`);
    assert.equal(await page.getByRole("tabpanel").count(), 1);
  }
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "panel-embed");
  await page.evaluate(() => (location.hash = "#write"));
  await page.getByRole("tab", { name: "Write", selected: true }).waitFor();
});

inPage("everything has a name", "", async (page) => {
  const nameless = await page.evaluate(() => {
    const isNamed = (node) => node.labels?.length || node.getAttribute("aria-label") || node.textContent.trim();
    return [...document.querySelectorAll("input, select, textarea, button, progress, meter")].filter((node) => !isNamed(node)).map((node) => node.id);
  });
  assert.deepEqual(nameless, []);
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((node) => node.id));
  assert.equal(new Set(ids).size, ids.length);
  const referred = await page.evaluate(() =>
    [...document.querySelectorAll("*")].flatMap((node) => ["for", "aria-labelledby", "aria-describedby", "aria-controls"].map((name) => node.getAttribute(name)).filter(Boolean)),
  );
  assert.deepEqual(referred.filter((id) => !ids.includes(id)), []);
});

/** Puts something into each tab. */
async function fill(page) {
  const turn = (tab) => page.getByRole("tab", { name: tab }).click();
  await compare(page);
  await turn("Search");
  await find(page);
  await page.locator("#found mark").first().waitFor();
  await turn("Speak");
  await transcribe(page, "jfk.flac");
  await page.locator("#said-query").fill("your nation");
  await page.locator("#said-form").getByRole("button").click();
  await said(page, "said-note", /best first/);
  await turn("Write");
  await page.locator("#max-tokens").fill("60");
  await page.locator("#seed").fill("3");
  await write(page, "Write");
}

inPage("text has contrast, and nothing is wider than a phone", "#embed", async (page) => {
  await fill(page);
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 320], ["dark", 320]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    for (const tab of TABS) {
      await page.getByRole("tab", { name: new RegExp(tab, "i") }).click();
      await page.mouse.move(0, 0);
      if (tab === "status") await page.locator("#status").waitFor();
      const name = `${tab} ${colorScheme} ${width}`;
      const { poor, looked } = await page.evaluate(poorContrasts);
      assert.deepEqual([poor, looked > 20], [[], true], name);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name}: ${wide} px too wide`);
      await page.screenshot({ path: `${OUT}/${tab}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await page.getByRole("tab", { name: "Write" }).click();
  await page.getByText("A chat", { exact: true }).click();
  await page.locator("#max-tokens").fill("30");
  await write(page, "Send");
  const { poor } = await page.evaluate(poorContrasts);
  assert.deepEqual(poor, []);
  // The measure itself finds what is poor.
  await page.locator("#chat-hint").evaluate((node) => node.style.setProperty("color", "rgb(120 100 90 / 0.5)"));
  assert.match((await page.evaluate(poorContrasts)).poor.join(), /^[12]\.\d\d P "Enter sends[^,]*, Shift[^"]*"$/);
  await page.locator("#chat-hint").evaluate((node) => node.style.removeProperty("color"));
  await page.screenshot({ path: `${OUT}/chat-dark-320.png`, fullPage: true });
});

test("the policy lets nothing in from elsewhere", async () => {
  const reply = await fetch(URL_, { headers: { accept: "text/html" } });
  const policy = reply.headers.get("content-security-policy");
  assert.match(reply.headers.get("content-type"), /^text\/html/);
  for (const part of ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(part), policy);
  }
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
  const html = await reply.text();
  assert.doesNotMatch(html, / (on\w+|style)=|src="|@import|https?:\/\/(?!www\.w3\.org)/);
});

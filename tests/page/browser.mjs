// Chromium, and pages of it that keep what went wrong in them.

import { createRequire } from "node:module";

// Packages lie beside what the tests make.
const { chromium } = createRequire(`${process.env.TEALIGHT_PAGE_OUT}/`)("playwright-core");

const ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

/** Chromium with a microphone that plays a file. */
export function launch(wave) {
  const microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${wave}`];
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: [...ARGUMENTS.split(" "), ...microphone] });
}

/** A page of its own context. `problems` has errors of scripts, of the console and of the Content-Security-Policy. */
export async function open(browser, url, { before, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const problems = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(error.message));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sample}`));
  });
  await before?.(page);
  await page.goto(url);
  return { page, problems };
}

/** Waits until the note beside an action says that it ended, one way or the other; returns what it says. */
export async function said(page, id, pattern) {
  const note = page.locator(`#${id}`);
  await page.waitForFunction(([id, source]) => new RegExp(source).test(document.getElementById(id).textContent), [id, pattern.source]);
  return note.textContent();
}

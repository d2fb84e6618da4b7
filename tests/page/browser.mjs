// Starts Chromium and opens pages that record their errors.

import { createRequire } from "node:module";

// tests/check_page installs the packages in the output folder of the tests.
const { chromium } = createRequire(`${process.env.TEALIGHT_PAGE_OUT}/`)("playwright-core");

const ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

/** Starts Chromium with a microphone that plays a WAV file. */
export function launch(wavPath) {
  const microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${wavPath}`];
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: [...ARGUMENTS.split(" "), ...microphone] });
}

/** Opens a URL in a new browser context. `problems` collects script errors, console errors and Content-Security-Policy violations. */
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

/** Waits until the message of an action matches a pattern; returns the message. */
export async function waitForMessage(page, id, pattern) {
  const element = page.locator(`#${id}`);
  await page.waitForFunction(([id, source]) => new RegExp(source).test(document.getElementById(id).textContent), [id, pattern.source]);
  return element.textContent();
}

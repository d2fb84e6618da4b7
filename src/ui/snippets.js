// The embedding request as code. JSON literals are also valid in Python, except for `true`, which Python writes as `True`.

const SNIPPETS = {
  curl: (body, url, hasKey) => {
    // Within single quotes a shell interprets nothing; only a single quote has to be escaped.
    const quoted = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
    const header = hasKey ? ' \\\n  -H "authorization: Bearer $TEALIGHT_API_KEY"' : "";
    return `curl ${url}v1/embeddings \\\n  -H 'content-type: application/json'${header} \\\n  -d '${quoted}'`;
  },
  python: ({ input, model, dimensions, truncate }, url, hasKey) => {
    const key = hasKey ? 'os.environ["TEALIGHT_API_KEY"]' : '"none"';
    const args = [
      `    model=${JSON.stringify(model ?? defaultModel("embedding"))},`,
      `    input=${JSON.stringify(input, null, 4).replaceAll("\n", "\n    ")},`,
      dimensions && `    dimensions=${dimensions},`,
      truncate && `    extra_body={"truncate": True},`,
    ];
    const call = `response = client.embeddings.create(\n${args.filter(Boolean).join("\n")}\n)`;
    const client = `from openai import OpenAI\n\nclient = OpenAI(base_url="${url}v1", api_key=${key})`;
    return `${hasKey ? "import os\n" : ""}${client}\n${call}\nprint(response.data[0].embedding)`;
  },
  javascript: (body, url, hasKey) => {
    const key = hasKey ? "\n    authorization: `Bearer ${process.env.TEALIGHT_API_KEY}`," : "";
    const headers = `{${key}\n    "content-type": "application/json",\n  }`;
    const json = JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
    const options = `  method: "POST",\n  headers: ${headers},\n  body: JSON.stringify(${json}),`;
    const call = `const response = await fetch("${url}v1/embeddings", {\n${options}\n});`;
    return `${call}\nconst { data } = await response.json();\nconsole.log(data[0].embedding);`;
  },
};

function showSnippet() {
  const body = { input: embeddingTexts(), ...embeddingOptions() };
  const hasKey = Boolean(sessionStorage.getItem(KEY_STORAGE));
  $("snippet").textContent = SNIPPETS[radioValue("snippet-language")](body, BASE_URL.href, hasKey);
}

/** Copies the code, or selects it if the page has no access to the clipboard, as over plain HTTP. */
async function copySnippet() {
  const action = new Action("snippet-message");
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    action.showMessage("Copied.");
  } catch {
    getSelection().selectAllChildren($("snippet"));
    action.showMessage("Selected: copy it with Ctrl + C.");
  }
}

// The request in three languages. JSON is a literal in Python and JavaScript, too, but for what Python calls True.

const CODE = {
  curl: (body, url, hasKey) => {
    // In single quotes a shell changes nothing, and only a quote ends them.
    const quoted = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
    const header = hasKey ? ' \\\n  -H "authorization: Bearer $TEALIGHT_API_KEY"' : "";
    return `curl ${url}v1/embeddings \\\n  -H 'content-type: application/json'${header} \\\n  -d '${quoted}'`;
  },
  python: ({ input, model, dimensions, truncate }, url, hasKey) => {
    const key = hasKey ? 'os.environ["TEALIGHT_API_KEY"]' : '"none"';
    const fields = [
      `    model=${JSON.stringify(model ?? defaultModel("embedding"))},`,
      `    input=${JSON.stringify(input, null, 4).replaceAll("\n", "\n    ")},`,
      dimensions && `    dimensions=${dimensions},`,
      truncate && `    extra_body={"truncate": True},`,
    ];
    const call = `reply = client.embeddings.create(\n${fields.filter(Boolean).join("\n")}\n)`;
    const client = `from openai import OpenAI\n\nclient = OpenAI(base_url="${url}v1", api_key=${key})`;
    return `${hasKey ? "import os\n" : ""}${client}\n${call}\nprint(reply.data[0].embedding)`;
  },
  javascript: (body, url, hasKey) => {
    const key = hasKey ? "\n    authorization: `Bearer ${process.env.TEALIGHT_API_KEY}`," : "";
    const headers = `{${key}\n    "content-type": "application/json",\n  }`;
    const json = JSON.stringify(body, null, 2).replaceAll("\n", "\n  ");
    const fields = `  method: "POST",\n  headers: ${headers},\n  body: JSON.stringify(${json}),`;
    const call = `const reply = await fetch("${url}v1/embeddings", {\n${fields}\n});`;
    return `${call}\nconst { data } = await reply.json();\nconsole.log(data[0].embedding);`;
  },
};

function showCode() {
  const body = { input: embedTexts(), ...embedOptions() };
  $("code").textContent = CODE[checked("code")](body, BASE.href, Boolean(sessionStorage.getItem(KEY)));
}

/** Copies the code; where a page may not, as over http, it is selected for the hand. */
async function copyCode() {
  const action = new Action("code-note");
  try {
    await navigator.clipboard.writeText($("code").textContent);
    action.say("Copied.");
  } catch {
    getSelection().selectAllChildren($("code"));
    action.say("Selected: copy it with Ctrl + C.");
  }
}

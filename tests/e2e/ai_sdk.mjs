// Vercel's `ai` with `@ai-sdk/anthropic` against a running server: node ai_sdk.mjs BASE_URL (with NODE_MODULES in the environment).
//
// Its base URL includes `/v1`. It has no Files API and no `container_upload`: files go through plain HTTP, and the block
// through `fetch`, the provider's own option for what it does not know. The container it carries with
// `forwardAnthropicContainerIdFromLastStep`.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { runCases } from "./cases.mjs";

const require = createRequire(process.env.NODE_MODULES + "/");
const { createAnthropic, forwardAnthropicContainerIdFromLastStep } = require("@ai-sdk/anthropic");
const { generateText, jsonSchema, stepCountIs, streamText, tool } = require("ai");

const SUITE = "ai 6.0.326";
const BASE_URL = process.argv[2] + "/v1";
const KEY = "sk-test-local";
const CSV = "x,y\n1,2\n3,4\n";

/** What `generateText` and `streamText` need for a turn of the script; `more` is theirs. */
function turn(script, { provider = {}, ...more } = {}) {
  const anthropic = createAnthropic({ baseURL: BASE_URL, apiKey: KEY, headers: { "belljar-script": script }, ...provider });
  const bash = { code_execution: anthropic.tools.codeExecution_20250825() };
  return { model: anthropic("claude-opus-4-5"), prompt: "Go on.", maxRetries: 0, tools: bash, ...more };
}

/** A provider whose user message also has the uploaded file. */
function withUpload(fileId) {
  return {
    fetch: (url, { body, ...more }) => {
      const request = JSON.parse(body);
      request.messages[0].content.unshift({ type: "container_upload", file_id: fileId });
      return fetch(url, { ...more, body: JSON.stringify(request) });
    },
  };
}

async function files(path, more = {}) {
  const answer = await fetch(`${BASE_URL}/files${path}`, {
    headers: { "x-api-key": KEY, "anthropic-version": "2023-06-01" },
    ...more,
  });
  assert.equal(answer.status, 200);
  return answer;
}

const result = (step) => step.content.find((part) => part.type === "tool-result" && part.providerExecuted)?.output;
const container = (step) => step.providerMetadata.anthropic.container.id;

/** A program's own tool that code may call, and what it was asked. */
function lookup(asked) {
  return tool({
    description: "Looks a key up.",
    inputSchema: jsonSchema({ type: "object", properties: { key: { type: "string" } }, required: ["key"] }),
    execute: ({ key }) => (asked.push(key), key),
    providerOptions: { anthropic: { allowedCallers: ["code_execution_20260120"] } },
  });
}

function codeTurn(script, asked) {
  const { tools } = createAnthropic({ baseURL: BASE_URL, apiKey: KEY });
  return turn(script, {
    tools: { code_execution: tools.codeExecution_20260120(), lookup: lookup(asked) },
    stopWhen: stepCountIs(30),
    prepareStep: forwardAnthropicContainerIdFromLastStep,
  });
}

const codeResult = (steps) =>
  steps.at(-1).content.find((part) => part.type === "tool-result" && part.toolName === "code_execution").output;
const TWENTY = Array.from({ length: 20 }, (_, number) => String(number));

async function streamed(request) {
  const run = streamText({ ...request, onError: () => {} });
  const parts = [];
  for await (const part of run.fullStream) parts.push(part);
  return { parts, steps: await run.steps };
}

const cases = {
  async text() {
    assert.equal((await generateText(turn("plain"))).text, "Nothing to run here.");
  },

  async runsBash() {
    const { steps, text, usage } = await generateText(turn("bash"));
    const { stdout, return_code } = result(steps[0]);
    assert.deepEqual({ stdout, return_code, text }, { stdout: "a\nb\n", return_code: 0, text: "Running it.It printed a and b." });
    assert.deepEqual([usage.inputTokens, usage.outputTokens], [250, 28]);
    assert.match(container(steps[0]), /^container_01\w{22}$/);
  },

  async runsBashInAStream() {
    const { parts, steps } = await streamed(turn("bash"));
    const text = parts.filter((part) => part.type === "text-delta").map((part) => part.text);
    assert.equal(text.join(""), "Running it.It printed a and b.");
    assert.equal(result(steps[0]).stdout, "a\nb\n");
    assert.match(container(steps[0]), /^container_01\w{22}$/);
  },

  async fileInAndFileOut() {
    const form = new FormData();
    form.append("file", new Blob([CSV], { type: "text/csv" }), "numbers.csv");
    const made = await (await files("", { method: "POST", body: form })).json();
    const read = await generateText(turn("read_upload", { provider: withUpload(made.id) }));
    assert.equal(result(read.steps[0]).stdout, CSV);
    const produced = result((await generateText(turn("generate"))).steps[0]).content;
    assert.equal(produced.length, 1);
    assert.equal(await (await files(`/${produced[0].file_id}/content`)).text(), "x,y\n1,2\n");
  },

  async containerIsReused() {
    const id = container((await generateText(turn("remember"))).steps[0]);
    const again = await generateText(turn("recall", { providerOptions: { anthropic: { container: { id } } } }));
    assert.equal(result(again.steps[0]).stdout, "forty-two\nunset\n");
    assert.equal(container(again.steps[0]), id);
    assert.equal(result((await generateText(turn("recall"))).steps[0]).stdout, "unset\n");
  },

  async historyIsSentBack() {
    const opening = { role: "user", content: "Run it." };
    const first = await generateText(turn("remember", { messages: [opening], prompt: undefined }));
    const messages = [opening, ...first.response.messages, { role: "user", content: "What was it?" }];
    const providerOptions = { anthropic: { container: { id: container(first.steps[0]) } } };
    const second = await generateText(turn("recall", { messages, prompt: undefined, providerOptions }));
    assert.equal(result(second.steps[0]).stdout, "forty-two\nunset\n");
  },

  async twentyCallsFromCode() {
    const asked = [];
    const { steps, text } = await generateText(codeTurn("code_loop", asked));
    assert.deepEqual(asked, TWENTY);
    assert.equal(codeResult(steps).stdout, "190\n");
    assert.deepEqual([steps.length, text], [21, "Done."]);
  },

  async eightCallsAtOnceInAStream() {
    const asked = [];
    const { steps } = await streamed(codeTurn("code_gather", asked));
    assert.deepEqual([steps.length, asked.sort()], [2, TWENTY.slice(0, 8)]);
    assert.equal(codeResult(steps).stdout, "0,1,2,3,4,5,6,7\n");
  },

  async errorsAreThrown() {
    const providerOptions = { anthropic: { container: { id: "container_011CVexampLe1111111111111" } } };
    await assert.rejects(generateText(turn("bash", { providerOptions })), (error) => {
      assert.deepEqual([error.name, error.statusCode], ["AI_APICallError", 404]);
      assert.match(error.message, /^Container not found: container_011CV/);
      return true;
    });
    const { parts } = await streamed(turn("fault_midstream"));
    assert.equal(parts.filter((part) => part.type === "error").length, 1);
  },
};

await runCases(SUITE, cases);

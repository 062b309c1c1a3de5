// The official TypeScript SDK against a running server: node node_sdk.mjs BASE_URL (with NODE_MODULES in the environment).

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { runCases } from "./cases.mjs";

const require = createRequire(process.env.NODE_MODULES + "/");
const { default: Anthropic, toFile } = require("@anthropic-ai/sdk");
const { betaTool } = require("@anthropic-ai/sdk/helpers/beta/json-schema");

const TOOL = { type: "code_execution_20250825", name: "code_execution" };
const CODE = { type: "code_execution_20260521", name: "code_execution" };
const LOOKUP = {
  name: "lookup",
  description: "Looks a key up.",
  input_schema: { type: "object", properties: { key: { type: "string" } }, required: ["key"] },
  allowed_callers: ["code_execution_20260120"],
};
const SUITE = "node 1.11.0";
const CSV = "x,y\n1,2\n3,4\n";
const client = new Anthropic({ apiKey: "sk-test-local", baseURL: process.argv[2], maxRetries: 0 });

const body = (more = {}) => ({
  model: "claude-opus-5-5",
  max_tokens: 1024,
  tools: [TOOL],
  messages: [{ role: "user", content: "Go on." }],
  ...more,
});
const script = (name) => ({ headers: { "belljar-script": name } });
const ask = (name, more) => client.messages.create(body(more), script(name));
const kinds = (message) => message.content.map((block) => block.type);
const bashResults = (message) =>
  message.content.filter((block) => block.type === "bash_code_execution_tool_result").map((block) => block.content);
const BASH_TURN = ["text", "server_tool_use", "bash_code_execution_tool_result", "text"];

/** What the SDK's own runner makes of a script: its replies, and what was asked. */
async function codeCalls(name, answer) {
  const asked = [];
  const lookup = betaTool({
    name: "lookup",
    description: LOOKUP.description,
    inputSchema: LOOKUP.input_schema,
    allowed_callers: LOOKUP.allowed_callers,
    run: ({ key }) => (asked.push(key), answer(key)),
  });
  const messages = [];
  const runner = client.beta.messages.toolRunner(body({ tools: [CODE, lookup] }), script(name));
  for await (const message of runner) messages.push(message);
  return { messages, asked };
}
const codeResult = (message) =>
  message.content.find((block) => block.type === "code_execution_tool_result")?.content;

async function thrown(action, kind) {
  try {
    await action();
  } catch (error) {
    assert.ok(error instanceof kind, `${error.constructor.name} instead of ${kind.name}: ${error.message}`);
    return error;
  }
  assert.fail(`no ${kind.name} was thrown`);
}

const cases = {
  async createWithoutCode() {
    const message = await ask("plain");
    assert.deepEqual(kinds(message), ["text"]);
    assert.equal(message.content[0].text, "Nothing to run here.");
    assert.equal(message.container ?? null, null);
  },

  async createWithBash() {
    const message = await ask("bash");
    assert.deepEqual(kinds(message), BASH_TURN);
    const { stdout, stderr, return_code, content } = bashResults(message)[0];
    assert.deepEqual({ stdout, stderr, return_code, content }, { stdout: "a\nb\n", stderr: "", return_code: 0, content: [] });
    assert.match(message.container.id, /^container_01[1-9A-HJ-NP-Za-km-z]{22}$/);
    assert.equal(message.usage.input_tokens, 250);
  },

  async streamHelper() {
    const stream = client.messages.stream(body(), script("bash"));
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const message = await stream.finalMessage();
    assert.equal(text, "Running it.It printed a and b.");
    assert.deepEqual(kinds(message), BASH_TURN);
    assert.deepEqual(message.content[1].input, { command: "printf 'a\\nb\\n'" });
    assert.match(message.container.id, /^container_01/);
  },

  async liveOutputIsPassedOver() {
    const headers = { headers: { "belljar-script": "live_output", "belljar-live-output": "1" } };
    const message = await client.messages.stream(body(), headers).finalMessage();
    assert.equal(message.content[1].content.stdout, "one\ntwo\n");
    const seen = [];
    for await (const event of await client.messages.create({ ...body(), stream: true }, headers)) seen.push(event.type);
    assert.deepEqual([seen[0], seen.at(-1)], ["message_start", "message_stop"]);
  },

  async streamRaw() {
    const events = [];
    for await (const event of await ask("bash", { stream: true })) events.push(event);
    const starts = events.filter((event) => event.type === "content_block_start");
    assert.deepEqual(starts.map((event) => event.content_block.type), BASH_TURN);
    assert.deepEqual(starts.map((event) => event.index), [0, 1, 2, 3]);
    assert.equal(events[0].type, "message_start");
    assert.equal(events.at(-1).type, "message_stop");
  },

  async betaToolRunner() {
    const asked = [];
    const weather = betaTool({
      name: "get_weather",
      description: "The weather in a city.",
      inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      run: ({ city }) => (asked.push(city), "4 degrees"),
    });
    const more = body({ tools: [weather, TOOL], max_iterations: 4 });
    const runner = client.beta.messages.toolRunner(more, script("server_then_client"));
    const messages = [];
    for await (const message of runner) messages.push(message);
    assert.deepEqual(asked, ["Oslo"]);
    assert.deepEqual(kinds(messages[0]), ["server_tool_use", "bash_code_execution_tool_result", "tool_use"]);
    assert.equal(messages.at(-1).content.at(-1).text, "Both done.");
  },

  async runnerAnswersCallsFromCode() {
    const twenty = await codeCalls("code_loop", (key) => key);
    assert.deepEqual(twenty.asked, Array.from({ length: 20 }, (_, number) => String(number)));
    assert.equal(codeResult(twenty.messages.at(-1)).stdout, "190\n");
    assert.equal(twenty.messages.length, 21);
    const eight = await codeCalls("code_gather", (key) => `<${key}>`);
    assert.equal(eight.messages.length, 2);
    assert.equal(codeResult(eight.messages[1]).stdout, "<0>,<1>,<2>,<3>,<4>,<5>,<6>,<7>\n");
    const exit = await codeCalls("code_early_exit", (key) => (key === "3" ? "healthy" : "down"));
    assert.deepEqual(exit.asked, ["0", "1", "2", "3"]);
  },

  async codeCallsInStreams() {
    const opening = [{ role: "user", content: "Go on." }];
    const more = { tools: [CODE, LOOKUP], messages: opening };
    const first = await client.messages.stream(body(more), script("code_gather")).finalMessage();
    assert.deepEqual(kinds(first), ["server_tool_use", ...Array(8).fill("tool_use")]);
    const answers = first.content
      .filter((block) => block.type === "tool_use")
      .map((block) => ({ type: "tool_result", tool_use_id: block.id, content: block.input.key }));
    const messages = [...opening, { role: "assistant", content: first.content }, { role: "user", content: answers }];
    const goOn = body({ ...more, messages, container: first.container.id });
    const second = await client.messages.stream(goOn, script("code_gather")).finalMessage();
    assert.equal(codeResult(second).stdout, "0,1,2,3,4,5,6,7\n");
    const again = await client.messages.create(goOn, script("code_gather"));
    assert.equal(again.id, second.id);
    const { container: _left, ...alone } = goOn;
    const refused = await thrown(() => client.messages.create(alone, script("code_gather")), Anthropic.BadRequestError);
    assert.equal(
      refused.error.error.message,
      "container_id is required when there are pending tool uses generated by code execution with tools.",
    );
  },

  async codeCallsTheServersOwnTool() {
    const file = await toFile(Buffer.from("x,y\n1,2\n"), "of-the-server.csv", { type: "text/csv" });
    await client.files.upload({ file });
    const opening = [{ role: "user", content: "Go on." }];
    const more = { tools: [CODE, { type: "belljar_files_20261129", name: "belljar_files" }] };
    const first = await client.messages.stream(body({ ...more, messages: opening }), script("host_files_by_name")).finalMessage();
    const pair = ["server_tool_use", "belljar_files_tool_result"];
    const expected = ["server_tool_use", ...pair, ...pair, ...pair, "code_execution_tool_result", "text"];
    assert.deepEqual(kinds(first), expected);
    assert.match(codeResult(first).stdout, /^of-the-server.csv 8\n/);
    const messages = [...opening, { role: "assistant", content: first.content }, { role: "user", content: "Again." }];
    const goOn = body({ ...more, messages, container: first.container.id });
    const again = await client.messages.create(goOn, script("host_files_by_name"));
    assert.equal(codeResult(again).stdout, codeResult(first).stdout);
  },

  async filesLife() {
    for (const files of [client.files, client.beta.files]) {
      const made = await files.upload({ file: await toFile(Buffer.from(CSV), "numbers.csv", { type: "text/csv" }) });
      assert.equal(made.filename, "numbers.csv");
      assert.equal(made.size_bytes, CSV.length);
      const listed = [];
      for await (const file of files.list({ limit: 2 })) listed.push(file.id);
      assert.equal(listed.filter((id) => id === made.id).length, 1);
      const error = await thrown(() => files.download(made.id), Anthropic.BadRequestError);
      assert.equal(error.error.error.details.error_code, "file_not_downloadable");
      const gone = await files.delete(made.id);
      assert.deepEqual({ id: gone.id, type: gone.type }, { id: made.id, type: "file_deleted" });
      await thrown(() => files.retrieveMetadata(made.id), Anthropic.NotFoundError);
    }
  },

  async uploadAndGeneratedFile() {
    const made = await client.files.upload({ file: await toFile(Buffer.from(CSV), "numbers.csv", { type: "text/csv" }) });
    const content = [{ type: "container_upload", file_id: made.id }, { type: "text", text: "Sum x." }];
    const read = await ask("read_upload", { messages: [{ role: "user", content }] });
    assert.equal(bashResults(read)[0].stdout, CSV);
    const produced = bashResults(await ask("generate"))[0].content;
    assert.equal(produced.length, 1);
    const answer = await client.files.download(produced[0].file_id);
    assert.equal(await answer.text(), "x,y\n1,2\n");
  },

  async containerReusedByStringAndObject() {
    const first = await ask("remember");
    for (const container of [first.container.id, { id: first.container.id }]) {
      const again = await ask("recall", { container });
      assert.equal(bashResults(again)[0].stdout, "forty-two\nunset\n");
      assert.equal(again.container.id, first.container.id);
    }
  },

  async errorsHaveTheirClasses() {
    const unknown = "container_011CVexampLe1111111111111";
    const missing = await thrown(() => ask("bash", { container: unknown }), Anthropic.NotFoundError);
    assert.deepEqual(missing.error.error, { type: "not_found_error", message: `Container not found: ${unknown}` });
    const twice = await thrown(() => ask("bash", { tools: [TOOL, TOOL] }), Anthropic.BadRequestError);
    assert.equal(twice.error.error.message, "tools: Tool names must be unique.");
    const nobody = { headers: { "belljar-script": "bash", authorization: null, "x-api-key": null } };
    await thrown(() => client.messages.create(body(), nobody), Anthropic.AuthenticationError);
    const busy = await thrown(() => ask("fault_before"), Anthropic.APIError);
    assert.equal(busy.status, 529);
  },

  async midStreamErrorIsThrown() {
    const error = await thrown(async () => {
      for await (const _event of await ask("fault_midstream", { stream: true }));
    }, Anthropic.APIError);
    assert.equal(error.error.type, "error");
  },

  async requestIdIsExposed() {
    const { data, response } = await client.messages.create(body(), script("plain")).withResponse();
    assert.match(response.headers.get("request-id"), /^req_01/);
    assert.equal(data._request_id, response.headers.get("request-id"));
  },

  async modelsAreListed() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.length > 0);
    assert.equal((await client.models.retrieve(ids[0])).id, ids[0]);
  },
};

await runCases(SUITE, cases);

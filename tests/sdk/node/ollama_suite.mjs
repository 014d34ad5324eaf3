// Ollama's official Node client against a served gateway: HOST, MODEL, REGISTRY.
// Prints one line for each check; ends with 1 if one failed.

import assert from "node:assert/strict";
import { Ollama } from "ollama";

const { HOST, MODEL, REGISTRY } = process.env;
const client = new Ollama({ host: HOST });

const capital = [{ role: "user", content: "What is the capital of France?" }];
const count = [{ role: "user", content: "Count from 1 to 20." }];
const ada = [{ role: "user", content: "Answer in JSON with keys name and age: Ada is 36" }];
const weather = [{ role: "user", content: "What is the weather in Oslo?" }];
const getWeather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the current weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const person = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};
const options = { temperature: 0 };
const names = async () => (await client.list()).models.map((model) => model.name);
const all = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
};

const checks = {
  async "chats"() {
    const answer = await client.chat({ model: MODEL, messages: capital, options });
    assert.match(answer.message.content, /Paris/);
    assert.equal(answer.done_reason, "stop");
    assert.ok(answer.eval_count > 0 && answer.eval_duration > 0);
  },

  async "streams what it says whole"() {
    const whole = await client.chat({ model: MODEL, messages: count, options });
    const parts = await all(await client.chat({ model: MODEL, messages: count, options, stream: true }));
    assert.equal(parts.map((part) => part.message.content).join(""), whole.message.content);
    assert.ok(parts.length > 2);
    assert.equal(parts.at(-1).done, true);
  },

  async "calls tools"() {
    const answer = await client.chat({ model: MODEL, messages: weather, tools: [getWeather], options });
    const [call] = answer.message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(call.function.arguments, { city: "Oslo" });
  },

  async "keeps to a format"() {
    const answer = await client.chat({ model: MODEL, messages: ada, format: person, options });
    assert.deepEqual(JSON.parse(answer.message.content), { name: "Ada", age: 36 });
    const some = await client.generate({ model: MODEL, prompt: ada[0].content, format: "json", options });
    assert.equal(typeof JSON.parse(some.response), "object");
  },

  async "generates, and goes on with a context"() {
    const first = await client.generate({ model: MODEL, prompt: "My name is Ada.", options });
    const second = await client.generate({
      model: MODEL,
      prompt: "What is my name?",
      context: first.context,
      options,
    });
    assert.match(second.response, /Ada/);
    const parts = await all(
      await client.generate({ model: MODEL, prompt: "My name is Ada.", options, stream: true }),
    );
    assert.equal(parts.map((part) => part.response).join(""), first.response);
  },

  async "embeds"() {
    const several = await client.embed({ model: MODEL, input: ["one", "two words"] });
    assert.equal(several.embeddings.length, 2);
    const one = await client.embeddings({ model: MODEL, prompt: "one" });
    assert.equal(one.embedding.length, several.embeddings[0].length);
  },

  async "lists, shows, loads and unloads"() {
    assert.ok((await names()).includes(MODEL));
    const shown = await client.show({ model: MODEL });
    assert.equal(shown.details.family, "llama");
    assert.ok(shown.capabilities.includes("completion"));
    await client.generate({ model: MODEL, prompt: "", keep_alive: "10m" });
    assert.deepEqual((await client.ps()).models.map((model) => model.name), [MODEL]);
    await client.generate({ model: MODEL, prompt: "", keep_alive: 0 });
    assert.deepEqual((await client.ps()).models, []);
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
  },

  async "makes, copies, pushes, pulls and deletes a model"() {
    const name = `${REGISTRY}/node:v1`;
    const made = await all(
      await client.create({ model: "node", from: MODEL, system: "Be kind.", stream: true }),
    );
    assert.equal(made.at(-1).status, "success");
    assert.equal((await client.copy({ source: "node", destination: name })).status, "success");
    assert.equal((await all(await client.push({ model: name, stream: true }))).at(-1).status, "success");
    await client.delete({ model: name });
    await assert.rejects(client.chat({ model: name, messages: capital }), { status_code: 404 });
    const pulled = await all(await client.pull({ model: name, stream: true }));
    assert.equal(pulled.at(-1).status, "success");
    assert.ok(pulled.some((step) => step.digest && step.total));
    assert.match((await client.chat({ model: name, messages: capital, options })).message.content, /Paris/);
    assert.equal((await client.pull({ model: name })).status, "success");
    await client.delete({ model: name });
    await client.delete({ model: "node" });
    assert.ok(!(await names()).some((one) => one.includes("node")));
  },

  async "is told what is not there"() {
    const asked = { model: "no-such-model" };
    for (const ask of [
      () => client.chat({ ...asked, messages: capital }),
      () => client.chat({ ...asked, messages: capital, stream: true }),
      () => client.generate({ ...asked, prompt: "hi" }),
      () => client.show(asked),
      () => client.delete(asked),
    ]) {
      await assert.rejects(ask(), { status_code: 404, error: "model 'no-such-model' not found" });
    }
  },

  async "may leave in mid-stream"() {
    const stream = await client.chat({ model: MODEL, messages: count, stream: true });
    await assert.rejects(async () => {
      for await (const part of stream) {
        assert.equal(part.done, false);
        stream.abort();
      }
    });
    assert.equal((await client.chat({ model: MODEL, messages: capital, options })).done, true);
  },
};

let failed = 0;
console.log(`${Object.keys(checks).length} checks of ${HOST}`);
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    failed = 1;
    console.log(`FAILED ${name}: ${error.stack}`);
  }
}
process.exit(failed);

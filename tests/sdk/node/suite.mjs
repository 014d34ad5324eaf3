// The official Node client against a served gateway: BASE_URL, MODEL, ALIAS, API_KEY, BAD_KEY.
// Prints one line for each check; ends with 1 if one failed.

import assert from "node:assert/strict";
import OpenAI from "openai";

const { BASE_URL, MODEL, ALIAS, API_KEY, BAD_KEY } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });

const capital = [{ role: "user", content: "What is the capital of France?" }];
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
  additionalProperties: false,
};

const checks = {
  async "chats"() {
    const { data, request_id } = await client.chat.completions
      .create({ model: MODEL, messages: capital, temperature: 0 })
      .withResponse();
    assert.match(data.choices[0].message.content, /Paris/);
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.equal(data.model, MODEL);
    assert.match(request_id, /^req_/);
  },

  async "streams what it says whole"() {
    const whole = await client.chat.completions.create({ model: MODEL, messages: capital, temperature: 0 });
    const stream = await client.chat.completions.create({
      model: MODEL,
      messages: capital,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage = null;
    const ids = new Set();
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
      ids.add(chunk.id);
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(ids.size, 1);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  },

  async "answers a JSON schema"() {
    const answer = await client.chat.completions.create({
      model: MODEL,
      messages: ada,
      temperature: 0,
      response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema: person } },
    });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { name: "Ada", age: 36 });
  },

  async "calls a tool"() {
    const answer = await client.chat.completions.create({
      model: MODEL,
      messages: weather,
      tools: [getWeather],
      temperature: 0,
    });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
  },

  async "puts a streamed tool call together"() {
    const stream = client.chat.completions.stream({
      model: MODEL,
      messages: weather,
      tools: [getWeather],
      temperature: 0,
    });
    const { choices } = await stream.finalChatCompletion();
    const [call] = choices[0].message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
  },

  async "embeds"() {
    const input = ["hello there", "good morning"];
    // Without an encoding the client asks for base64 and decodes it.
    const decoded = await client.embeddings.create({ model: MODEL, input });
    const numbers = await client.embeddings.create({ model: MODEL, input, encoding_format: "float" });
    assert.equal(decoded.data.length, 2);
    for (const [place, { embedding }] of decoded.data.entries()) {
      assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-4);
      assert.ok(embedding.every((x, i) => Math.abs(x - numbers.data[place].embedding[i]) < 1e-6));
    }
  },

  async "lists and finds models"() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes(MODEL) && ids.includes(ALIAS));
    assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
  },

  async "goes on with a text"() {
    const answer = await client.completions.create({ model: MODEL, prompt: "Once", max_tokens: 3, temperature: 0 });
    assert.equal(answer.object, "text_completion");
    assert.equal(typeof answer.choices[0].text, "string");
  },

  async "knows an unknown model"() {
    await assert.rejects(
      client.chat.completions.create({ model: "nobody/nothing:1b", messages: capital }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && error.param === "model",
    );
    await assert.rejects(client.models.retrieve("nobody/nothing:1b"), OpenAI.NotFoundError);
  },

  async "knows a bad field"() {
    await assert.rejects(
      client.chat.completions.create({ model: MODEL, messages: capital, temperature: 3 }),
      (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
    );
  },

  async "knows a bad key"() {
    const stranger = new OpenAI({ baseURL: BASE_URL, apiKey: BAD_KEY, maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`failed ${name}: ${error.stack}`);
  }
}
process.exit(failed ? 1 : 0);

// Holds ECS documents (one JSON object a line on standard input) against the schemas of ECS 8 and 9 that Elastic publishes:
// names, types, allowed values, and the event types that each category expects. Then holds our index templates' fields
// against them.
"use strict";

const schemas = ["@elastic/ecs", "ecs-9"].map((name) => require(name).EcsFlat);
const net = require("node:net");
const fs = require("node:fs");

const OURS = "custody.";

function* leaves(value, name) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value)) yield* leaves(inner, name ? `${name}.${key}` : key);
  } else {
    yield [name, value];
  }
}

const holds = {
  keyword: (v) => typeof v === "string",
  wildcard: (v) => typeof v === "string",
  match_only_text: (v) => typeof v === "string",
  ip: (v) => net.isIP(v) !== 0,
  long: (v) => Number.isSafeInteger(v),
  boolean: (v) => typeof v === "boolean",
  date: (v) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/.test(v) && !Number.isNaN(Date.parse(v)),
};

function complaintsBy(EcsFlat, document) {
  const found = [];
  for (const [name, value] of leaves(document, "")) {
    if (name.startsWith(OURS)) continue;
    const field = EcsFlat[name];
    if (!field) {
      found.push(`${name} is no field of ECS`);
      continue;
    }
    if (field.normalize.includes("array") && !Array.isArray(value)) found.push(`${name} must be a list`);
    for (const one of [value].flat()) {
      if (!holds[field.type]?.(one)) found.push(`${name} can't be ${JSON.stringify(one)}`);
      const allowed = field.allowed_values?.map((v) => v.name);
      if (allowed && !allowed.includes(one)) found.push(`${name} may not be ${one}`);
    }
  }
  for (const required of ["@timestamp", "ecs.version", "event.kind", "message"]) {
    if (!required.split(".").reduce((at, key) => at?.[key], document)) found.push(`${required} is missing`);
  }
  const categories = document.event?.category ?? [];
  const types = document.event?.type ?? [];
  const expected = new Map(EcsFlat["event.category"].allowed_values.map((v) => [v.name, v.expected_event_types]));
  for (const type of types) {
    if (!categories.some((c) => expected.get(c)?.includes(type))) found.push(`${categories} doesn't expect ${type}`);
  }
  for (const category of categories) {
    if (!types.some((t) => expected.get(category)?.includes(t))) found.push(`${category} expects none of ${types}`);
  }
  return found;
}

const complaints = (document) => [...new Set(schemas.flatMap((schema) => complaintsBy(schema, document)))];

const documents = fs.readFileSync(0, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
let wrong = 0;
for (const document of documents) {
  const found = complaints(document);
  if (found.length) {
    wrong += 1;
    console.error(`${document.custody.type}: ${found.join("; ")}`);
  }
}

// A validator that takes everything would prove nothing.
const breaks = [
  (d) => (d.event.category = ["nonsense"]),
  (d) => (d.event.type = ["denied", "indicator"]),
  (d) => (d.event.outcome = "denied"),
  (d) => (d.source = { ip: "10.0.0.1:443" }),
  (d) => (d.source = { port: "22" }),
  (d) => (d.user = { nickname: "al" }),
  (d) => (d.event.created = "yesterday"),
  (d) => (d.related = { user: "alice" }),
  (d) => delete d["@timestamp"],
];
const refused = breaks.filter((change) => {
  const broken = structuredClone(documents[0]);
  change(broken);
  return complaints(broken).length > 0;
});

// What an index template may say instead of what ECS says.
const instead = { wildcard: ["keyword"], match_only_text: ["text"], date: ["date_nanos"] };
let fields = 0;
for (const path of process.argv.slice(2)) {
  const mappings = JSON.parse(fs.readFileSync(path, "utf8")).template.mappings;
  const walk = (properties, prefix) => {
    for (const [key, field] of Object.entries(properties)) {
      const name = prefix + key;
      if (field.properties) {
        walk(field.properties, `${name}.`);
      } else if (!name.startsWith(OURS)) {
        fields += 1;
        for (const type of schemas.map((schema) => schema[name]?.type)) {
          if (field.type !== type && !instead[type]?.includes(field.type)) {
            wrong += 1;
            console.error(`${path}: ${name} is ${field.type}, in ECS ${type}`);
          }
        }
      }
    }
  };
  walk(mappings.properties, "");
}
console.log(`${documents.length} documents, ${wrong} wrong; ${refused.length} of ${breaks.length} broken ones are refused`);
console.log(`${fields} fields in templates`);
process.exitCode = wrong ? 1 : 0;

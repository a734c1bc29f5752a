// ssh2 of npm, which knows no certificates, as a client of the proxy: PORT FOLDER USER, and the password at the input.
"use strict";

const { Client } = require("ssh2");
const fs = require("node:fs");

const [port, folder, user] = process.argv.slice(2);
const password = fs.readFileSync(0, "utf8");
const called = (object, name, ...rest) =>
  new Promise((done, failed) => object[name](...rest, (error, value) => (error ? failed(error) : done(value))));

const client = new Client();
// Listens at once: the end of a quick command comes with its beginning.
const run = (command, options = {}, input = "") =>
  new Promise((done, failed) =>
    client.exec(command, options, (error, channel) => {
      if (error) return failed(error);
      let [out, err, code] = [[], "", undefined];
      channel.on("data", (data) => out.push(data)).on("exit", (status) => (code = status));
      channel.on("close", () => done({ out: Buffer.concat(out), err: err.trim(), code }));
      channel.stderr.on("data", (data) => (err += data));
      channel.end(input);
    }),
  );

const work = async () => {
  let done = await run("echo out; echo err >&2; exit 42");
  console.log("exec", `${done.out}`.trim(), done.err, done.code);
  const data = Buffer.alloc(2_000_000, "by npm's ssh2");
  done = await run("cat", {}, data);
  console.log("bytes", done.out.equals(data) ? data.length : "other");
  const many = [...Array(8).keys()].map((n) => run(`read x; echo ${n}`, {}, "go\n"));
  console.log("channels", new Set((await Promise.all(many)).map(({ out }) => `${out}`)).size);
  done = await run("stty size", { pty: { cols: 111, rows: 33 } });
  console.log("terminal", `${done.out}`.trim());

  const sftp = await called(client, "sftp");
  // 64 parts at once, in whatever order the disk gives them.
  await called(sftp, "fastPut", `${folder}/file`, `${folder}/put`);
  await called(sftp, "fastGet", `${folder}/put`, `${folder}/got`);
  const same = fs.readFileSync(`${folder}/got`).equals(fs.readFileSync(`${folder}/file`));
  const missing = await called(sftp, "open", `${folder}/missing`, "r").catch(({ code }) => code);
  const listed = (await called(sftp, "readdir", folder)).some(({ filename }) => filename === "put");
  console.log("files", same, missing, listed);
  client.end();
};

client.on("keyboard-interactive", (name, instructions, language, prompts, answer) =>
  answer(prompts.map(({ echo }) => (echo ? user : password))),
);
client.on("ready", () => work().catch((error) => (console.error(error), process.exit(1))));
client.on("error", (error) => (console.error(error), process.exit(1)));
client.connect({ host: "127.0.0.1", port, username: "root+web-1", tryKeyboard: true });

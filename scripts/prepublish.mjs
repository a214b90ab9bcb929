// Makes the package ready to be published: each platform's package gets this version and must hold its addon, and the
// main package depends on all of them. The alias package depends on this version; its own version, which satisfies `^12`,
// is raised by hand with each release.
import fs from "node:fs";

const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const write = (file, value) => fs.writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);

const manifest = read("package.json");
manifest.optionalDependencies = {};
for (const platform of fs.readdirSync("npm").filter((name) => name !== "realm")) {
  const file = `npm/${platform}/package.json`;
  const own = read(file);
  if (!fs.existsSync(`npm/${platform}/${own.main}`)) {
    throw new Error(
      `npm/${platform} lacks ${own.main}: build it on that platform with \`npm run prepare\` and copy it there`,
    );
  }
  write(file, { ...own, version: manifest.version });
  manifest.optionalDependencies[own.name] = manifest.version;
}
write("package.json", manifest);

const alias = read("npm/realm/package.json");
write("npm/realm/package.json", { ...alias, dependencies: { [manifest.name]: manifest.version } });

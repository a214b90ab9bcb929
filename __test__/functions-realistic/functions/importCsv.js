function parse(text) {
  const [header, ...lines] = text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  const names = header.split(",");
  return lines.map((line) => {
    const cells = line.split(",");
    return names.reduce((row, name, i) => ({ ...row, [name]: cells[i] }), {});
  });
}

exports = async (text) => {
  const contacts = context.services.get("mongodb-atlas").db("app").collection("contacts");
  const rows = parse(text);
  const valid = rows.filter((row) => row.email && row.email.includes("@"));
  valid.forEach((row) => {
    row.age = parseInt(row.age, 10);
  });
  if (valid.length > 0) {
    const { insertedIds } = await contacts.insertMany(valid);
    console.log("imported", insertedIds.length);
  }
  return { imported: valid.length, skipped: rows.length - valid.length };
};

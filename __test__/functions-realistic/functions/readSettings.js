exports = () => {
  const { values, tag } = context.environment;
  return {
    tag,
    api: values.apiUrl ?? "none",
    limit: context.values.get("uploadLimit"),
    missing: context.values.get("unknown") === undefined,
  };
};

exports = async (ticketId) => {
  const role = context.functions.execute("roleOf", context.user);
  if (role !== "agent") {
    return { closed: false, role };
  }
  const ticket = await context.functions.execute("writeTicket", ticketId, { state: "closed" });
  return { closed: ticket.state === "closed", role };
};

exports = (user) => (user.custom_data && user.custom_data.role) || "guest";

export * from "userkeep";
export { default } from "userkeep";

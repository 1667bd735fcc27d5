// Read an AsyncAPI document from the standard input; print what is wrong with it, as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const found = await new Parser().validate(readFileSync(0, "utf8"));
const errors = found.filter((each) => each.severity === 0);
console.log(JSON.stringify(errors.map((each) => [each.path.join("."), each.message])));

// node asyncapi.mjs FILE: prints each finding of AsyncAPI's own parser; exit code 1 where there is one.
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { Parser, fromFile } = require('@asyncapi/parser');
const { diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
for (const found of diagnostics) console.log(`${found.code} ${found.path.join('.')}: ${found.message}`);
process.exit(diagnostics.length ? 1 : 0);

// The sample: one stack with one table, all of it new. Context: database, table, codeDir, architecture (arm64 | x86_64), shards.

import * as path from 'node:path';

import { App, Stack } from 'aws-cdk-lib';
import { Architecture } from 'aws-cdk-lib/aws-lambda';

import { SiltstoneTable } from '../lib';

const app = new App();
const context = (name: string): string | undefined => app.node.tryGetContext(name) as string | undefined;

function architecture(): Architecture {
  const name = context('architecture') ?? 'arm64';
  if (name !== 'arm64' && name !== 'x86_64') {
    throw new Error(`architecture is arm64 or x86_64, not \`${name}\``);
  }
  return name === 'arm64' ? Architecture.ARM_64 : Architecture.X86_64;
}

const shards = context('shards');
const database = context('database') ?? 'shop';
const table = context('table') ?? 'orders';
// A stack of its own for each table: another table never takes over the functions of the first.
const stack = new Stack(app, `Siltstone-${database}-${table}`.replace(/[^A-Za-z0-9-]/g, '-'), { description: 'Siltstone: a Kinesis stream as an upserted Paimon table on S3',
});
new SiltstoneTable(stack, 'Table', {
  database,
  table,
  codeDir: context('codeDir') ?? path.join(process.cwd(), '..', '..', 'target', 'lambda'),
  architecture: architecture(),
  ...(shards === undefined ? {} : { shards: Number(shards) }),
});

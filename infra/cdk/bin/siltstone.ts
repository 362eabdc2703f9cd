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
const stack = new Stack(app, 'Siltstone', { description: 'Siltstone: a Kinesis stream as an upserted Paimon table on S3' });
new SiltstoneTable(stack, 'Orders', {
  database: context('database') ?? 'shop',
  table: context('table') ?? 'orders',
  codeDir: context('codeDir') ?? path.join(process.cwd(), '..', '..', 'target', 'lambda'),
  architecture: architecture(),
  ...(shards === undefined ? {} : { shards: Number(shards) }),
});

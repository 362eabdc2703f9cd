// The template that the construct gives, without AWS: settings that the commit protocol needs, permissions, variants.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { after, describe, it } from 'node:test';

import { App, Duration, Stack } from 'aws-cdk-lib';
import { Annotations, Match, Template } from 'aws-cdk-lib/assertions';
import * as dynamodb from 'aws-cdk-lib/aws-dynamodb';
import * as kinesis from 'aws-cdk-lib/aws-kinesis';
import * as kms from 'aws-cdk-lib/aws-kms';
import { Architecture } from 'aws-cdk-lib/aws-lambda';
import * as s3 from 'aws-cdk-lib/aws-s3';

import { SiltstoneTable, SiltstoneTableProps } from '../lib';
import { BINARIES } from '../lib/settings';

type Properties = { [name: string]: any };
interface Statement {
  Sid?: string;
  Effect: string;
  Action: string | string[];
  Resource: unknown;
  Condition?: Properties;
}

/** Stands in for what cargo-lambda builds: only the template is looked at. */
const codeDir = fs.mkdtempSync(path.join(os.tmpdir(), 'siltstone-'));
for (const binary of Object.values(BINARIES)) {
  fs.mkdirSync(path.join(codeDir, binary));
  fs.writeFileSync(path.join(codeDir, binary, 'bootstrap'), '');
}
after(() => fs.rmSync(codeDir, { recursive: true }));

function stackWith(given: (stack: Stack) => Partial<SiltstoneTableProps> = () => ({})): Stack {
  const stack = new Stack(new App(), 'Test');
  new SiltstoneTable(stack, 'Orders', { database: 'shop', table: 'orders', codeDir, ...given(stack) });
  return stack;
}

const templateWith = (given?: (stack: Stack) => Partial<SiltstoneTableProps>): Template => Template.fromStack(stackWith(given));

const only = (template: Template, type: string): Properties => {
  const found = Object.values(template.findResources(type));
  assert.equal(found.length, 1, `one ${type}`);
  return found[0]!.Properties as Properties;
};

/** The policy statements of each function's role, by role. */
function statements(template: Template): Map<string, Statement[]> {
  const roles = Object.values(template.findResources('AWS::IAM::Role')).map((r) => r.Properties as Properties);
  return new Map(roles.filter((r) => r.Policies).map((r) => [r.Policies[0].PolicyName, r.Policies[0].PolicyDocument.Statement]));
}

const list = (value: string | string[]): string[] => ([] as string[]).concat(value);
const actions = (of: Statement[]): string[] => of.flatMap((s) => list(s.Action));

describe('event source mapping', () => {
  it('has the settings that the protocol needs', () => {
    const mapping = only(templateWith(), 'AWS::Lambda::EventSourceMapping');
    const { EventSourceArn: _stream, FunctionName: _function, ...settings } = mapping;
    assert.deepEqual(settings, {
      StartingPosition: 'TRIM_HORIZON',
      BatchSize: 10000,
      MaximumBatchingWindowInSeconds: 10,
      ParallelizationFactor: 1,
      MaximumRetryAttempts: -1,
      MaximumRecordAgeInSeconds: -1,
      BisectBatchOnFunctionError: true,
      FunctionResponseTypes: ['ReportBatchItemFailures'],
    });
  });

  it('takes another window and refuses an impossible one', () => {
    const mapping = only(templateWith(() => ({ window: Duration.seconds(60) })), 'AWS::Lambda::EventSourceMapping');
    assert.equal(mapping.MaximumBatchingWindowInSeconds, 60);
    assert.throws(() => stackWith(() => ({ window: Duration.seconds(301) })), /0 s to 300 s/);
  });
});

describe('functions', () => {
  it('are three, on arm64, with the agreed environment', () => {
    const functions = Object.values(templateWith().findResources('AWS::Lambda::Function')).map((f) => f.Properties as Properties);
    assert.equal(functions.length, 3, 'no custom resource brings a function of its own');
    for (const f of functions) {
      assert.equal(f.Runtime, 'provided.al2023');
      assert.deepEqual(f.Architectures, ['arm64']);
      const names = Object.keys(f.Environment.Variables);
      for (const name of ['BUCKET', 'WAREHOUSE', 'TABLE', 'ITEMS_TABLE']) {
        assert.ok(names.includes(`SILTSTONE_${name}`), `${f.Description}: SILTSTONE_${name}`);
      }
      assert.equal(f.Environment.Variables.SILTSTONE_TABLE, 'shop.orders');
      assert.equal(f.Environment.Variables.MALLOC_ARENA_MAX, '1', 'memory limits hold with one arena');
      assert.ok(f.LoggingConfig.LogGroup, 'logs with a retention of their own');
    }
    const maintain = functions.find((f) => f.Description.startsWith('Siltstone maintain'))!;
    assert.ok(maintain.Environment.Variables.SILTSTONE_FUNCTION_INGEST.Ref, 'maintain knows whose mapping to check');
  });

  it('compact may hand over to itself, under a cap', () => {
    templateWith().hasResourceProperties('AWS::Lambda::Function', {
      Description: 'Siltstone compact of shop.orders', RecursiveLoop: 'Allow', ReservedConcurrentExecutions: 10,
    });
    templateWith(() => ({ compactConcurrency: 3 })).hasResourceProperties('AWS::Lambda::Function', {
      RecursiveLoop: 'Allow', ReservedConcurrentExecutions: 3,
    });
  });

  it('can be x86_64', () => {
    templateWith(() => ({ architecture: Architecture.X86_64 })).allResourcesProperties('AWS::Lambda::Function', { Architectures: ['x86_64'] });
  });

  it('keep what they gave up on', () => {
    const template = templateWith();
    const configs = Object.values(template.findResources('AWS::Lambda::EventInvokeConfig')).map((c) => c.Properties as Properties);
    assert.equal(configs.length, 2);
    for (const config of configs) {
      assert.equal(config.MaximumRetryAttempts, 2);
      assert.equal(config.MaximumEventAgeInSeconds, 21600);
      assert.ok(config.DestinationConfig.OnFailure.Destination);
    }
  });
});

describe('permissions', () => {
  it('name every action, none a wildcard', () => {
    const all = statements(templateWith());
    assert.deepEqual([...all.keys()].sort(), ['compact', 'ingest', 'maintain']);
    for (const [role, own] of all) {
      for (const action of actions(own)) {
        assert.doesNotMatch(action, /\*/, role);
      }
    }
  });

  it('name every resource, but for the one read that has none', () => {
    for (const [role, own] of statements(templateWith())) {
      const open = own.filter((s) => ([] as unknown[]).concat(s.Resource).includes('*')).map((s) => s.Action);
      assert.deepEqual(open, role === 'maintain' ? ['lambda:ListEventSourceMappings'] : []);
    }
  });

  it('end at the prefix of the table', () => {
    for (const own of statements(templateWith()).values()) {
      const objects = own.find((s) => s.Sid === 'TableObjects')!;
      const text = JSON.stringify(objects.Resource);
      assert.match(text, /\/warehouse\/shop\.db\/orders\/\*/);
      assert.match(text, /\/_siltstone\/\*\/warehouse\/shop\.db\/orders\/\*/);
      assert.equal((objects.Resource as unknown[]).length, 2);
      assert.ok(own.find((s) => s.Sid === 'ListTable')!.Condition!.StringLikeIfExists['s3:prefix']);
    }
  });

  it('reach the items of their own table only, by the actions that their code takes', () => {
    const items = [...statements(templateWith())].map(([role, own]) => [role, own.find((s) => s.Sid === 'Items')!] as const);
    const keys = { 'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['table#warehouse/shop.db/orders', 'table#warehouse/shop.db/orders#*'] } };
    for (const [role, statement] of items) {
      assert.deepEqual(statement.Condition, keys, role);
    }
    // Whoever commits may have to commit what others have staged.
    for (const [role, statement] of items) {
      const names = list(statement.Action).map((a) => a.replace('dynamodb:', '')).sort();
      assert.deepEqual(names, ['DeleteItem', 'GetItem', 'PutItem', 'Query', 'UpdateItem'], role);
    }
  });

  it('let only maintain delete data, and only ingest read records', () => {
    const all = statements(templateWith());
    const may = (action: string): string[] => [...all].filter(([, s]) => actions(s).includes(action)).map(([role]) => role).sort();
    assert.deepEqual(may('kinesis:GetRecords'), ['ingest']);
    assert.deepEqual(may('s3:DeleteObject'), ['compact', 'maintain']);
    const tasks = all.get('compact')!.find((s) => actions([s]).includes('s3:DeleteObject'))!;
    assert.match(JSON.stringify(tasks.Resource), /\/_siltstone\/tasks\/warehouse\/shop\.db\/orders\/\*/);
  });

  it('let EventBridge and S3 invoke, from this account only', () => {
    const permissions = Object.values(templateWith().findResources('AWS::Lambda::Permission')).map((p) => p.Properties as Properties);
    assert.deepEqual(permissions.map((p) => p.Principal).sort(), ['events.amazonaws.com', 's3.amazonaws.com']);
    for (const permission of permissions) {
      assert.ok(permission.SourceArn, 'a named source');
    }
  });
});

describe('bucket', () => {
  const denied = (template: Template): Statement[] => only(template, 'AWS::S3::BucketPolicy').PolicyDocument.Statement;

  it('denies plain HTTP and puts of a snapshot without If-None-Match', () => {
    const found = denied(templateWith());
    assert.deepEqual(found.map((s) => [s.Sid, s.Effect]), [['TlsOnly', 'Deny'], ['SnapshotsAreNeverReplaced', 'Deny']]);
    const snapshots = found[1]!;
    assert.equal(snapshots.Action, 's3:PutObject');
    assert.deepEqual(snapshots.Condition, { Null: { 's3:if-none-match': 'true' } });
    assert.match(JSON.stringify(snapshots.Resource), /\/\*\/snapshot\/snapshot-\*"/);
  });

  it('can leave foreign writers alone', () => {
    assert.deepEqual(denied(templateWith(() => ({ denyUnconditionalSnapshots: false }))).map((s) => s.Sid), ['TlsOnly']);
  });

  it('tells compact about task objects without a custom resource', () => {
    const template = templateWith();
    const bucket = Object.values(template.findResources('AWS::S3::Bucket'))[0]!;
    const [configuration] = bucket.Properties.NotificationConfiguration.LambdaConfigurations;
    assert.equal(configuration.Event, 's3:ObjectCreated:*');
    assert.deepEqual(configuration.Filter.S3Key.Rules, [{ Name: 'prefix', Value: '_siltstone/tasks/warehouse/shop.db/orders/' }]);
    const [permission] = Object.keys(template.findResources('AWS::Lambda::Permission', { Properties: { Principal: 's3.amazonaws.com' } }));
    assert.ok((bucket.DependsOn as string[]).includes(permission!), 'the permission is there before S3 tries it');
    const types = Object.values(template.toJSON().Resources).map((r) => (r as { Type: string }).Type);
    assert.deepEqual(types.filter((t) => t.startsWith('Custom::')), []);
  });

  it('is private, encrypted and kept', () => {
    const template = templateWith();
    template.hasResource('AWS::S3::Bucket', { DeletionPolicy: 'Retain', Properties: {
      PublicAccessBlockConfiguration: { BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true },
      BucketEncryption: { ServerSideEncryptionConfiguration: [{ BucketKeyEnabled: true }] },
    } });
  });
});

describe('items and stream', () => {
  it('keep the pointer from accidents', () => {
    templateWith().hasResource('AWS::DynamoDB::Table', { DeletionPolicy: 'Retain', Properties: {
      KeySchema: [{ AttributeName: 'p', KeyType: 'HASH' }, { AttributeName: 's', KeyType: 'RANGE' }],
      BillingMode: 'PAY_PER_REQUEST',
      DeletionProtectionEnabled: true,
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      TimeToLiveSpecification: Match.absent(),
    } });
  });

  it('keep records for 7 days or more', () => {
    templateWith().hasResourceProperties('AWS::Kinesis::Stream', { RetentionPeriodHours: 168, StreamModeDetails: { StreamMode: 'ON_DEMAND' } });
    templateWith(() => ({ retention: Duration.days(30), shards: 4 })).hasResourceProperties('AWS::Kinesis::Stream', { RetentionPeriodHours: 720, ShardCount: 4 });
    assert.throws(() => stackWith(() => ({ retention: Duration.days(1) })), /7 days/);
  });
});

describe('what is given is not made', () => {
  it('stream, bucket, key and items of the same stack', () => {
    const template = templateWith((stack) => ({
      stream: new kinesis.Stream(stack, 'S'),
      bucket: new s3.Bucket(stack, 'B'),
      encryptionKey: new kms.Key(stack, 'K'),
      itemsTable: new dynamodb.Table(stack, 'T', { partitionKey: { name: 'p', type: dynamodb.AttributeType.STRING } }),
    }));
    for (const type of ['AWS::Kinesis::Stream', 'AWS::S3::Bucket', 'AWS::KMS::Key', 'AWS::DynamoDB::Table']) {
      template.resourceCountIs(type, 1);
    }
    template.hasResourceProperties('AWS::S3::Bucket', { NotificationConfiguration: { EventBridgeConfiguration: { EventBridgeEnabled: true } } });
    template.hasResourceProperties('AWS::Events::Rule', { EventPattern: {
      source: ['aws.s3'], 'detail-type': ['Object Created'], detail: { object: { key: [{ prefix: '_siltstone/tasks/warehouse/shop.db/orders/' }] } },
    } });
    assert.deepEqual((only(template, 'AWS::S3::BucketPolicy').PolicyDocument.Statement as Statement[]).map((s) => s.Sid), ['TlsOnly', 'SnapshotsAreNeverReplaced']);
  });

  it('events of a given bucket reach compact in the shape of S3\'s own', () => {
    const template = templateWith((stack) => ({ bucket: new s3.Bucket(stack, 'B') }));
    const rules = Object.values(template.findResources('AWS::Events::Rule')).map((r) => r.Properties as Properties);
    const { InputPathsMap: paths, InputTemplate: text } = rules.find((r) => r.EventPattern)!.Targets[0].InputTransformer;
    const values: { [path: string]: unknown } = { '$.detail.object.key': '_siltstone/tasks/x', '$.detail.bucket.name': 'b', '$.detail.object.size': 7 };
    const filled = (text as string).replace(/<([^>]+)>/g, (_, name: string) => JSON.stringify(values[paths[name]] ?? 'other'));
    const [record] = JSON.parse(filled).Records;
    assert.equal(record.s3.object.key, '_siltstone/tasks/x');
    assert.equal(record.s3.object.size, 7);
    assert.equal(record.s3.bucket.name, 'b');
  });

  it('imported ones, with a warning for what cannot be set on them', () => {
    const stack = stackWith((scope) => ({
      stream: kinesis.Stream.fromStreamAttributes(scope, 'S', {
        streamArn: 'arn:aws:kinesis:us-east-1:111122223333:stream/orders',
        encryptionKey: kms.Key.fromKeyArn(scope, 'SK', 'arn:aws:kms:us-east-1:111122223333:key/stream'),
      }),
      bucket: s3.Bucket.fromBucketName(scope, 'B', 'lake'),
      encryptionKey: kms.Key.fromKeyArn(scope, 'K', 'arn:aws:kms:us-east-1:111122223333:key/lake'),
      itemsTable: dynamodb.Table.fromTableName(scope, 'T', 'siltstone'),
    }));
    const template = Template.fromStack(stack);
    for (const type of ['AWS::Kinesis::Stream', 'AWS::S3::Bucket', 'AWS::KMS::Key', 'AWS::DynamoDB::Table', 'AWS::S3::BucketPolicy']) {
      template.resourceCountIs(type, 0);
    }
    const ingest = statements(template).get('ingest')!;
    assert.deepEqual(ingest.find((s) => s.Sid === 'StreamKey')!.Resource, 'arn:aws:kms:us-east-1:111122223333:key/stream');
    assert.equal(Annotations.fromStack(stack).findWarning('*', Match.stringLikeRegexp('imported bucket')).length, 2);
  });

  it('settings of a new one beside a given one are refused', () => {
    assert.throws(() => stackWith((s) => ({ stream: new kinesis.Stream(s, 'S'), shards: 2 })), /beside `stream`/);
    assert.throws(() => stackWith((s) => ({ bucket: new s3.Bucket(s, 'B'), bucketName: 'x' })), /beside `bucket`/);
  });

  it('two tables may share a bucket, a key and an items table', () => {
    const stack = new Stack(new App(), 'Test');
    const first = new SiltstoneTable(stack, 'Orders', { database: 'shop', table: 'orders', codeDir });
    const second = new SiltstoneTable(stack, 'Items', {
      database: 'shop', table: 'items', codeDir, bucket: first.bucket, encryptionKey: first.encryptionKey, itemsTable: first.itemsTable,
    });
    assert.equal(second.bucket, first.bucket);
    const template = Template.fromStack(stack);
    const notification = only(template, 'AWS::S3::Bucket').NotificationConfiguration;
    assert.equal(notification.LambdaConfigurations.length, 1);
    assert.equal(notification.EventBridgeConfiguration.EventBridgeEnabled, true);
    const kept = only(template, 'AWS::S3::BucketPolicy').PolicyDocument.Statement as Statement[];
    assert.equal(kept.filter((s) => s.Sid === 'SnapshotsAreNeverReplaced').length, 1, 'statement ids are unique in a policy');
  });
});

describe('names and alarms', () => {
  it('names are checked as the functions check them', () => {
    for (const table of ['', 'a.b', 'a/b', 'ü']) {
      assert.throws(() => stackWith(() => ({ table })), /not a database or table name/);
    }
    for (const warehouse of ['/x', 'x/', 'a//b', '..']) {
      assert.throws(() => stackWith(() => ({ warehouse })), /not a warehouse prefix/);
    }
    assert.doesNotThrow(() => stackWith(() => ({ warehouse: '' })));
  });

  it('alarms ring for lag, errors, kept events, a fork, quarantined and late records and an unsafe mapping', () => {
    const alarms = Object.values(templateWith().findResources('AWS::CloudWatch::Alarm')).map((a) => a.Properties as Properties);
    assert.deepEqual(alarms.map((a) => a.MetricName).sort(), [
      'ApproximateNumberOfMessagesVisible', 'Errors', 'Errors', 'Errors', 'Forked', 'IteratorAge', 'Late', 'MappingFaults', 'Quarantined',
    ]);
    const own = alarms.filter((a) => a.Namespace === 'Siltstone').map((a) => [a.MetricName, a.Dimensions, a.Threshold]);
    const table = { Name: 'Table', Value: 'shop.orders' };
    assert.deepEqual(own.sort(), [
      ['Forked', [{ Name: 'Function', Value: 'ingest' }, table], 1],
      ['Late', [{ Name: 'Function', Value: 'ingest' }, table], 1],
      ['MappingFaults', [{ Name: 'Function', Value: 'maintain' }, table], 1],
      ['Quarantined', [{ Name: 'Function', Value: 'ingest' }, table], 1],
    ]);
    const age = alarms.find((a) => a.MetricName === 'IteratorAge')!;
    assert.equal(age.Threshold, 15 * 60 * 1000);
  });
});

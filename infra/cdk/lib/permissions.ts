// What each function may do: exact actions on exact prefixes. A statement per reason, so that a reader can check it.

import { Aws } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';

import { itemsPartition, location, OWN_PREFIX, ownPrefix, Role, TablePlace } from './settings';

/** The resources of one table, by name and ARN: ARNs made of names keep the bucket free of cycles. */
export interface Resources {
  readonly place: TablePlace;
  readonly bucketName: string;
  readonly itemsTableArn: string;
  readonly streamArn: string;
  readonly streamKeyArn?: string | undefined;
  readonly keyArn: string;
  readonly failuresArn: string;
}

const arn = (bucket: string, path = ''): string => `arn:${Aws.PARTITION}:s3:::${bucket}${path}`;

const allow = (sid: string, actions: string[], resources: string[], conditions?: iam.Conditions): iam.PolicyStatement =>
  new iam.PolicyStatement({ sid, actions, resources, ...(conditions ? { conditions } : {}) });

/**
 * What each function does with items: pointer, slots and leases are read and put; debt hints are added to (an update). Each of them may commit
 * what others have staged: it lists that (a query), and deletes old answers.
 */
const ITEM_ACTIONS = ['GetItem', 'PutItem', 'UpdateItem', 'DeleteItem', 'Query'].map((action) => `dynamodb:${action}`);

/** The policy of a function's role. */
export function statements(role: Role, r: Resources): iam.PolicyStatement[] {
  const table = arn(r.bucketName, `/${location(r.place)}/*`);
  const own = arn(r.bucketName, `/${OWN_PREFIX}/*/${location(r.place)}/*`);
  const common = [
    allow('TableObjects', ['s3:GetObject', 's3:PutObject', 's3:AbortMultipartUpload'], [table, own]),
    // IfExists: S3 says 404 instead of 403 for a missing object only to who may list, and a GET has no prefix to compare.
    allow('ListTable', ['s3:ListBucket'], [arn(r.bucketName)], {
      StringLikeIfExists: { 's3:prefix': [`${location(r.place)}/*`, `${OWN_PREFIX}/*/${location(r.place)}/*`] },
    }),
    // One items table may serve many tables: only partitions of this one, its own and those with a further part after `#`.
    allow('Items', ITEM_ACTIONS, [r.itemsTableArn], {
      'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': [itemsPartition(r.place), `${itemsPartition(r.place)}#*`] },
    }),
    allow('Key', ['kms:Decrypt', 'kms:DescribeKey', 'kms:Encrypt', 'kms:GenerateDataKey'], [r.keyArn]),
  ];
  return [...common, ...{ ingest, compact, maintain }[role](r, table, own)];
}

/** Ingest reads the stream. It deletes nothing. */
function ingest(r: Resources): iam.PolicyStatement[] {
  const stream = allow(
    'Stream',
    ['kinesis:DescribeStream', 'kinesis:DescribeStreamSummary', 'kinesis:GetRecords', 'kinesis:GetShardIterator', 'kinesis:ListShards'],
    [r.streamArn],
  );
  return r.streamKeyArn === undefined ? [stream] : [stream, allow('StreamKey', ['kms:Decrypt'], [r.streamKeyArn])];
}

/** Compact removes a task once it is done, and reports events that it could not handle. It deletes no data: the sweep does. */
function compact(r: Resources): iam.PolicyStatement[] {
  return [
    allow('Tasks', ['s3:DeleteObject'], [arn(r.bucketName, `/${ownPrefix(r.place, 'tasks')}*`)]),
    allow('Failures', ['sqs:SendMessage'], [r.failuresArn]),
  ];
}

/** Maintain expires and sweeps, and compares the real event source mapping with what the protocol needs. */
function maintain(r: Resources, table: string, own: string): iam.PolicyStatement[] {
  return [
    allow('ExpireAndSweep', ['s3:DeleteObject'], [table, own]),
    // Lambda offers no resource to name for this read: `*` is all that IAM accepts.
    allow('Mapping', ['lambda:ListEventSourceMappings'], ['*']),
    allow('Failures', ['sqs:SendMessage'], [r.failuresArn]),
  ];
}

/** The bucket's policy: TLS only, and no writer that replaces a published snapshot. */
export function bucketStatements(bucketName: string, denyUnconditionalSnapshots: boolean): iam.PolicyStatement[] {
  const tls = new iam.PolicyStatement({
    sid: 'TlsOnly',
    effect: iam.Effect.DENY,
    principals: [new iam.AnyPrincipal()],
    actions: ['s3:*'],
    resources: [arn(bucketName), arn(bucketName, '/*')],
    conditions: { Bool: { 'aws:SecureTransport': 'false' } },
  });
  // Other Paimon writers put `snapshot-N` without a precondition and would silently replace a committed snapshot.
  const snapshots = new iam.PolicyStatement({
    sid: 'SnapshotsAreNeverReplaced',
    effect: iam.Effect.DENY,
    principals: [new iam.AnyPrincipal()],
    actions: ['s3:PutObject'],
    resources: [arn(bucketName, '/*/snapshot/snapshot-*')],
    conditions: { Null: { 's3:if-none-match': 'true' } },
  });
  return denyUnconditionalSnapshots ? [tls, snapshots] : [tls];
}

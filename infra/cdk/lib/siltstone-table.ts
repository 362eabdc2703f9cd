// One Siltstone table on AWS: stream -> ingest -> bucket and pointer, compact on task objects, maintain on a schedule.
// Beside: `settings` (names agreed with the functions), `permissions` (what each role may do).
// Invariants: 1. the event source mapping is the one that the protocol needs, and no property changes it; 2. no custom
// resource: what is deployed is what the template says; 3. each role names its actions, none a wildcard.

import * as path from 'node:path';

import { Annotations, ArnFormat, Aws, CfnOutput, Duration, Names, RemovalPolicy, Stack, Token } from 'aws-cdk-lib';
import * as cloudwatch from 'aws-cdk-lib/aws-cloudwatch';
import * as dynamodb from 'aws-cdk-lib/aws-dynamodb';
import * as events from 'aws-cdk-lib/aws-events';
import * as targets from 'aws-cdk-lib/aws-events-targets';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as kinesis from 'aws-cdk-lib/aws-kinesis';
import * as kms from 'aws-cdk-lib/aws-kms';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as s3 from 'aws-cdk-lib/aws-s3';
import * as sqs from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';

import { bucketStatements, Resources, statements } from './permissions';
import { BINARIES, checkPlace, METRICS_NAMESPACE, OWN_PREFIX, ownPrefix, Role, TablePlace } from './settings';

/** Size and patience of one function. */
export interface FunctionSettings {
  /** Memory in MB; CPU grows with it (1,769 MB is one core). */
  readonly memoryMb?: number;
  readonly timeout?: Duration;
}

/** Settings of a table. What is not given is made, with defaults for a table of some MB/s. */
export interface SiltstoneTableProps {
  readonly database: string;
  readonly table: string;
  /** Prefix of the warehouse in the bucket. Default: `warehouse`. */
  readonly warehouse?: string;
  /** Folder with `<binary>/bootstrap` of each function, as `cargo lambda build` leaves it (`target/lambda`). */
  readonly codeDir: string;
  /** Processor that the functions were built for. Default: arm64. */
  readonly architecture?: lambda.Architecture;

  /** Stream to read. Its retention must be 7 days or more: a stuck shard loses records otherwise. Default: a new stream. */
  readonly stream?: kinesis.IStream;
  /** Shards of a new stream. Default: on demand. */
  readonly shards?: number;
  /** Retention of a new stream, 7 days or more. Default: 7 days. */
  readonly retention?: Duration;
  /** Bucket of the warehouse. A bucket that is given sends its events by EventBridge, see the README. Default: a new bucket. */
  readonly bucket?: s3.IBucket;
  /** Name of a new bucket. Default: made of the table's name, account and region. */
  readonly bucketName?: string;
  /** Key of everything at rest that this construct makes. Default: a new key with rotation. */
  readonly encryptionKey?: kms.IKey;
  /** Table of pointers, leases and slots, with string keys `p` and `s`; may serve many tables. Default: a new table. */
  readonly itemsTable?: dynamodb.ITable;
  /** Deny puts of `snapshot-N` without If-None-Match. Turn off only for a foreign writer that cannot send it. Default: true. */
  readonly denyUnconditionalSnapshots?: boolean;

  /** How long a batch may gather. Longer: fewer, larger files; shorter: fresher. 0 s to 300 s. Default: 10 s. */
  readonly window?: Duration;
  readonly ingest?: FunctionSettings;
  readonly compact?: FunctionSettings;
  readonly maintain?: FunctionSettings;
  /** Cap on compactions that run at once. Default: 10. */
  readonly compactConcurrency?: number;
  /** How often maintain runs. Default: 5 minutes. */
  readonly maintainEvery?: Duration;
  /** Anything else that the functions read from their environment; their READMEs list it. */
  readonly environment?: { readonly [name: string]: string };
  /** Verbosity of the functions' logs. Default: `info`. */
  readonly rustLog?: string;
  readonly logRetention?: logs.RetentionDays;
  /** Age of the oldest unread record at which the alarm rings. Default: 15 minutes. */
  readonly maxIteratorAge?: Duration;
  /** Told when an alarm rings, e.g. an SNS action. */
  readonly alarmActions?: cloudwatch.IAlarmAction[];
}

/** Buckets whose policy has the statements already. */
const PROTECTED = new WeakSet<s3.IBucket>();
const BATCH_SIZE = 10_000;
const MIN_RETENTION = Duration.days(7);
const DEFAULTS: Record<Role, Required<FunctionSettings>> = {
  ingest: { memoryMb: 1024, timeout: Duration.minutes(2) },
  compact: { memoryMb: 1769, timeout: Duration.minutes(15) },
  maintain: { memoryMb: 512, timeout: Duration.minutes(5) },
};

/** A stream that becomes an upserted Paimon table on S3. */
export class SiltstoneTable extends Construct {
  readonly stream: kinesis.IStream;
  readonly bucket: s3.IBucket;
  readonly encryptionKey: kms.IKey;
  readonly itemsTable: dynamodb.ITable;
  readonly ingest: lambda.Function;
  readonly compact: lambda.Function;
  readonly maintain: lambda.Function;
  readonly mapping: lambda.CfnEventSourceMapping;
  /** Events that `compact` or `maintain` gave up on. */
  readonly failures: sqs.Queue;
  readonly alarms: { readonly [name: string]: cloudwatch.Alarm };

  private readonly place: TablePlace;
  private readonly bucketName: string;

  constructor(scope: Construct, id: string, private readonly props: SiltstoneTableProps) {
    super(scope, id);
    this.place = { database: props.database, table: props.table, warehouse: props.warehouse ?? 'warehouse' };
    checkPlace(this.place);
    checkLimits(props);

    this.encryptionKey = props.encryptionKey ?? this.newKey();
    this.stream = props.stream ?? this.newStream();
    this.itemsTable = props.itemsTable ?? this.newItemsTable();
    this.bucketName = props.bucket?.bucketName ?? props.bucketName ?? this.defaultBucketName();
    this.failures = new sqs.Queue(this, 'Failures', {
      encryption: sqs.QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: Duration.days(14),
    });

    this.ingest = this.newFunction('ingest');
    this.compact = this.newFunction('compact', {
      reservedConcurrentExecutions: props.compactConcurrency ?? 10,
      // A job that outlives its function hands over by a task object; it counts its own hops.
      recursiveLoop: lambda.RecursiveLoop.ALLOW,
    });
    this.maintain = this.newFunction('maintain', {}, { SILTSTONE_FUNCTION_INGEST: this.ingest.functionName });

    this.mapping = this.newMapping();
    this.bucket = props.bucket === undefined ? this.newBucket() : this.adopt(props.bucket);
    this.keepFailures(this.compact);
    this.keepFailures(this.maintain);
    new events.Rule(this, 'MaintainSchedule', {
      description: `Maintains ${this.name}`,
      schedule: events.Schedule.rate(props.maintainEvery ?? Duration.minutes(5)),
      targets: [new targets.LambdaFunction(this.maintain, { retryAttempts: 2, maxEventAge: Duration.hours(1) })],
    });
    this.alarms = this.newAlarms();
    this.outputs();
  }

  /** `db.table`. */
  get name(): string {
    return `${this.place.database}.${this.place.table}`;
  }

  /** What the bucket's policy must say; for a bucket that was imported and whose policy is written elsewhere. */
  bucketPolicyStatements(): iam.PolicyStatement[] {
    return bucketStatements(this.bucketName, this.props.denyUnconditionalSnapshots ?? true);
  }

  private newKey(): kms.Key {
    return new kms.Key(this, 'Key', { description: `Siltstone ${this.name}`, enableKeyRotation: true, removalPolicy: RemovalPolicy.RETAIN });
  }

  private newStream(): kinesis.Stream {
    const { shards } = this.props;
    return new kinesis.Stream(this, 'Stream', {
      ...(shards === undefined
        ? { streamMode: kinesis.StreamMode.ON_DEMAND }
        : { streamMode: kinesis.StreamMode.PROVISIONED, shardCount: shards }),
      retentionPeriod: this.props.retention ?? MIN_RETENTION,
      encryption: kinesis.StreamEncryption.KMS,
      encryptionKey: this.encryptionKey,
      removalPolicy: RemovalPolicy.RETAIN,
    });
  }

  private newItemsTable(): dynamodb.Table {
    return new dynamodb.Table(this, 'Items', {
      partitionKey: { name: 'p', type: dynamodb.AttributeType.STRING },
      sortKey: { name: 's', type: dynamodb.AttributeType.STRING },
      billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      deletionProtection: true,
      encryption: dynamodb.TableEncryption.CUSTOMER_MANAGED,
      encryptionKey: this.encryptionKey,
      removalPolicy: RemovalPolicy.RETAIN,
    });
  }

  /** Known before the bucket is made, so that roles and permissions need not wait for it (and it can wait for them). */
  private defaultBucketName(): string {
    const plain = Names.uniqueResourceName(this, { maxLength: 24, separator: '-' }).toLowerCase();
    return `${plain}-${Aws.ACCOUNT_ID}-${Aws.REGION}`;
  }

  /** A bucket that tells `compact` about task objects by itself: no custom resource, which CDK's own notifications would add. */
  private newBucket(): s3.Bucket {
    const bucket = new s3.Bucket(this, 'Bucket', {
      bucketName: this.bucketName,
      blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
      objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
      encryption: s3.BucketEncryption.KMS,
      encryptionKey: this.encryptionKey,
      bucketKeyEnabled: true,
      lifecycleRules: [{ id: 'abandoned-uploads', abortIncompleteMultipartUploadAfter: Duration.days(1) }],
      removalPolicy: RemovalPolicy.RETAIN,
    });
    this.protect(bucket);
    const permission = new lambda.CfnPermission(this, 'TasksMayInvoke', {
      action: 'lambda:InvokeFunction',
      functionName: this.compact.functionArn,
      principal: 's3.amazonaws.com',
      sourceAccount: Aws.ACCOUNT_ID,
      sourceArn: `arn:${Aws.PARTITION}:s3:::${this.bucketName}`,
    });
    const cfn = bucket.node.defaultChild as s3.CfnBucket;
    cfn.addPropertyOverride('NotificationConfiguration.LambdaConfigurations', [
      {
        Event: 's3:ObjectCreated:*',
        Function: this.compact.functionArn,
        Filter: { S3Key: { Rules: [{ Name: 'prefix', Value: ownPrefix(this.place, 'tasks') }] } },
      },
    ]);
    cfn.addResourceDependency(permission); // S3 tries the function when the notification is set
    return bucket;
  }

  /** A bucket of someone else's: events come by EventBridge, which any number of users of the bucket can share. */
  private adopt(bucket: s3.IBucket): s3.IBucket {
    const cfn = bucket.node.defaultChild;
    if (cfn instanceof s3.CfnBucket) {
      cfn.addPropertyOverride('NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled', true);
    } else {
      Annotations.of(this).addWarningV2('siltstone:bucketEvents', 'turn on EventBridge notifications of the imported bucket: compaction starts by them');
    }
    if (!this.protect(bucket)) {
      Annotations.of(this).addWarningV2('siltstone:bucketPolicy', 'add bucketPolicyStatements() to the policy of the imported bucket');
    }
    new events.Rule(this, 'Tasks', {
      description: `Compaction tasks of ${this.name}`,
      eventPattern: {
        source: ['aws.s3'],
        detailType: ['Object Created'],
        detail: { bucket: { name: [this.bucketName] }, object: { key: [{ prefix: ownPrefix(this.place, 'tasks') }] } },
      },
      targets: [new targets.LambdaFunction(this.compact, { event: asS3Event(), retryAttempts: 2, maxEventAge: Duration.hours(6) })],
    });
    return bucket;
  }

  /** Adds the bucket's policy, once for all tables that share the bucket. False if the policy is not ours to write. */
  private protect(bucket: s3.IBucket): boolean {
    if (PROTECTED.has(bucket)) {
      return true;
    }
    PROTECTED.add(bucket);
    return this.bucketPolicyStatements().every((statement) => bucket.addToResourcePolicy(statement).statementAdded);
  }

  private newFunction(role: Role, more: Partial<lambda.FunctionProps> = {}, environment: { [name: string]: string } = {}): lambda.Function {
    const title = role.charAt(0).toUpperCase() + role.slice(1);
    const settings = { ...DEFAULTS[role], ...this.props[role] };
    const logGroup = new logs.LogGroup(this, `${title}Logs`, {
      retention: this.props.logRetention ?? logs.RetentionDays.ONE_MONTH,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const executionRole = new iam.Role(this, `${title}Role`, {
      assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com'),
      inlinePolicies: {
        [role]: new iam.PolicyDocument({
          statements: [
            ...statements(role, this.resources()),
            new iam.PolicyStatement({ sid: 'Logs', actions: ['logs:CreateLogStream', 'logs:PutLogEvents'], resources: [logGroup.logGroupArn] }),
          ],
        }),
      },
    });
    return new lambda.Function(this, title, {
      description: `Siltstone ${role} of ${this.name}`,
      runtime: lambda.Runtime.PROVIDED_AL2023,
      architecture: this.props.architecture ?? lambda.Architecture.ARM_64,
      handler: 'bootstrap',
      code: lambda.Code.fromAsset(path.join(this.props.codeDir, BINARIES[role])),
      memorySize: settings.memoryMb,
      timeout: settings.timeout,
      role: executionRole,
      logGroup,
      environment: {
        // glibc keeps an arena per thread and gives little of it back: a compaction then takes several times the memory that it uses.
        MALLOC_ARENA_MAX: '1',
        ...this.props.environment,
        SILTSTONE_BUCKET: this.bucketName,
        SILTSTONE_WAREHOUSE: this.place.warehouse,
        SILTSTONE_TABLE: this.name,
        SILTSTONE_ITEMS_TABLE: this.itemsTable.tableName,
        RUST_LOG: this.props.rustLog ?? 'info',
        ...environment,
      },
      ...more,
    });
  }

  private resources(): Resources {
    return {
      place: this.place,
      bucketName: this.bucketName,
      itemsTableArn: this.itemsTable.tableArn,
      streamArn: this.stream.streamArn,
      streamKeyArn: this.stream.encryptionKey?.keyArn,
      keyArn: this.encryptionKey.keyArn,
      failuresArn: this.failures.queueArn,
    };
  }

  /** Part of the commit protocol: one position per shard is right only if a shard's batches come in order, one at a time,
   *  until they are acknowledged. Hence no property for any of these but the window. */
  private newMapping(): lambda.CfnEventSourceMapping {
    return new lambda.CfnEventSourceMapping(this, 'Mapping', {
      functionName: this.ingest.functionName,
      eventSourceArn: this.stream.streamArn,
      startingPosition: 'TRIM_HORIZON',
      batchSize: BATCH_SIZE,
      maximumBatchingWindowInSeconds: (this.props.window ?? Duration.seconds(10)).toSeconds(),
      parallelizationFactor: 1,
      maximumRetryAttempts: -1,
      maximumRecordAgeInSeconds: -1,
      bisectBatchOnFunctionError: true,
      functionResponseTypes: ['ReportBatchItemFailures'],
    });
  }

  /** An asynchronous invocation is tried three times in all within six hours; then its event is kept here, and an alarm rings. */
  private keepFailures(fn: lambda.Function): void {
    new lambda.CfnEventInvokeConfig(this, `${fn.node.id}Failures`, {
      functionName: fn.functionName,
      qualifier: '$LATEST',
      maximumRetryAttempts: 2,
      maximumEventAgeInSeconds: Duration.hours(6).toSeconds(),
      destinationConfig: { onFailure: { destination: this.failures.queueArn } },
    });
  }

  private newAlarms(): { [name: string]: cloudwatch.Alarm } {
    const age = this.props.maxIteratorAge ?? Duration.minutes(15);
    const errors = (fn: lambda.Function) => fn.metricErrors({ period: Duration.minutes(5), statistic: 'Sum' });
    // What the functions say of themselves.
    const own = (role: Role, metricName: string) => new cloudwatch.Metric({
      namespace: METRICS_NAMESPACE,
      metricName,
      dimensionsMap: { Function: role, Table: this.name },
      period: Duration.minutes(5),
      statistic: 'Maximum',
    });
    return {
      iteratorAge: this.alarm('IteratorAge', 'ingest falls behind the stream; at the retention, records are lost', age.toMilliseconds(), 3,
        this.ingest.metric('IteratorAge', { period: Duration.minutes(5), statistic: 'Maximum' })),
      ingestErrors: this.alarm('IngestErrors', 'ingest fails: a shard waits until it succeeds', 1, 3, errors(this.ingest)),
      compactErrors: this.alarm('CompactErrors', 'compact fails: reads become slower', 1, 3, errors(this.compact)),
      maintainErrors: this.alarm('MaintainErrors', 'maintain fails: nothing is expired or repaired', 1, 3, errors(this.maintain)),
      failures: this.alarm('FailuresKept', 'events that compact or maintain gave up on', 1, 1,
        this.failures.metricApproximateNumberOfMessagesVisible({ period: Duration.minutes(5), statistic: 'Maximum' })),
      forked: this.alarm('Forked', 'another writer replaced a snapshot; commits are stopped: run `silt check`', 1, 1, own('ingest', 'Forked')),
      quarantined: this.alarm('Quarantined', 'records could not be decoded or typed: run `silt quarantine list`', 1, 1, own('ingest', 'Quarantined')),
      late: this.alarm('Late', 'rows came later than deletes are kept: one that was deleted meanwhile may be back', 1, 1, own('ingest', 'Late')),
      mapping: this.alarm('Mapping', 'the event source mapping is unsafe and ingest is stopped: set it as the construct does', 1, 1,
        own('maintain', 'MappingFaults')),
    };
  }

  private alarm(id: string, description: string, threshold: number, evaluationPeriods: number, metric: cloudwatch.Metric): cloudwatch.Alarm {
    const alarm = new cloudwatch.Alarm(this, `${id}Alarm`, {
      alarmDescription: `${this.name}: ${description}`,
      metric,
      threshold,
      evaluationPeriods,
      comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    });
    alarm.addAlarmAction(...(this.props.alarmActions ?? []));
    return alarm;
  }

  private outputs(): void {
    const values: { [name: string]: string } = {
      TableName: this.name,
      Warehouse: `s3://${this.bucketName}/${this.place.warehouse}`,
      StreamArn: this.stream.streamArn,
      ItemsTable: this.itemsTable.tableName,
      IngestFunction: this.ingest.functionName,
      CompactFunction: this.compact.functionName,
      MaintainFunction: this.maintain.functionName,
      FailuresQueue: this.failures.queueUrl,
      MappingArn: Stack.of(this).formatArn({
        service: 'lambda', resource: 'event-source-mapping', resourceName: this.mapping.ref, arnFormat: ArnFormat.COLON_RESOURCE_NAME,
      }),
    };
    for (const [name, value] of Object.entries(values)) {
      new CfnOutput(this, `${name}Output`, { value }).overrideLogicalId(`${this.node.id}${name}`);
    }
  }
}

/** Limits that AWS or the protocol sets, checked where the mistake is made. */
function checkLimits(props: SiltstoneTableProps): void {
  const window = props.window?.toSeconds() ?? 10;
  if (!Token.isUnresolved(window) && window > 300) {
    throw new Error(`a window of ${window} s is not possible: 0 s to 300 s`);
  }
  if (props.retention !== undefined && props.retention.toHours() < MIN_RETENTION.toHours()) {
    throw new Error('a retention under 7 days loses records of a shard that is stuck over a long weekend');
  }
  if (props.stream !== undefined && (props.shards !== undefined || props.retention !== undefined)) {
    throw new Error('shards and retention are for a new stream: leave them out beside `stream`');
  }
  if (props.bucket !== undefined && props.bucketName !== undefined) {
    throw new Error('bucketName is for a new bucket: leave it out beside `bucket`');
  }
  if ((props.compactConcurrency ?? 1) < 1) {
    throw new Error('compactConcurrency under 1 would stop compaction');
  }
}

/** An EventBridge event in the shape of an S3 notification, so that `compact` has one kind of input. The source stays EventBridge's: S3 encodes the
 *  keys in its own notifications, EventBridge does not, and `compact` tells them apart by it. */
function asS3Event(): events.RuleTargetInput {
  const at = events.EventField.fromPath;
  return events.RuleTargetInput.fromObject({
    Records: [
      {
        eventVersion: '2.1',
        eventSource: at('$.source'),
        awsRegion: at('$.region'),
        eventTime: at('$.time'),
        eventName: 'ObjectCreated:Put',
        userIdentity: { principalId: at('$.detail.requester') },
        requestParameters: { sourceIPAddress: '0.0.0.0' },
        responseElements: {},
        s3: {
          s3SchemaVersion: '1.0',
          configurationId: OWN_PREFIX,
          bucket: { name: at('$.detail.bucket.name'), ownerIdentity: { principalId: at('$.account') }, arn: at('$.resources[0]') },
          object: { key: at('$.detail.object.key'), size: at('$.detail.object.size'), eTag: at('$.detail.object.etag') },
        },
      },
    ],
  });
}

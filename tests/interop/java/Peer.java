import java.io.*;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.time.Duration;
import java.util.*;
import org.apache.paimon.CoreOptions;
import org.apache.paimon.bucket.BucketFunction;
import org.apache.paimon.catalog.*;
import org.apache.paimon.data.*;
import org.apache.paimon.data.serializer.InternalRowSerializer;
import org.apache.paimon.disk.IOManager;
import org.apache.paimon.fs.Path;
import org.apache.paimon.options.ExpireConfig;
import org.apache.paimon.options.MemorySize;
import org.apache.paimon.options.Options;
import org.apache.paimon.predicate.*;
import org.apache.paimon.reader.RecordReader;
import org.apache.paimon.schema.Schema;
import org.apache.paimon.schema.SchemaChange;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.core.JsonGenerator;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.core.io.SerializedString;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.databind.*;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.databind.node.*;
import org.apache.paimon.table.FileStoreTable;
import org.apache.paimon.table.Table;
import org.apache.paimon.table.sink.*;
import org.apache.paimon.table.source.*;
import org.apache.paimon.types.*;
import org.apache.paimon.utils.SegmentsCache;
import org.apache.paimon.utils.SerializationUtils;

/**
 * Java Paimon as a peer: one JSON command a line on standard input, one JSON answer a line on standard output. Cells of rows are
 * JSON in the form that canon.py describes. Started once by peers.py, since a JVM and its first table take seconds.
 */
public class Peer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long NANOS_PER_MILLI = 1_000_000;
    private static final BigInteger BIG_NANOS_PER_MILLI = BigInteger.valueOf(NANOS_PER_MILLI);
    private static final HexFormat HEX = HexFormat.of();
    private static final long CHECKSUM_BASE = 0x100000001B3L;
    private static final long CHECKSUM_MIX = 0x9E3779B97F4A7C15L;

    private final Catalog catalog;
    private final String scratch;
    private long commits = 1;
    /** Manifests decoded since all of a table was read last: what is read of the same state after that need not decode them again. */
    private SegmentsCache<Path> manifests = freshCache();

    private Peer(String warehouse, String scratch) {
        Options options = new Options();
        options.set("warehouse", "file://" + warehouse);
        // Others change schemas, too.
        options.set("cache-enabled", "false");
        this.catalog = CatalogFactory.createCatalog(CatalogContext.create(options));
        this.scratch = scratch;
    }

    private static SegmentsCache<Path> freshCache() {
        return SegmentsCache.create(MemorySize.ofMebiBytes(64), Long.MAX_VALUE);
    }

    /** Arguments: directory of the warehouse, directory for spilled files. */
    public static void main(String[] args) throws Exception {
        Peer peer = new Peer(args[0], args[1]);
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode answer;
            try {
                answer = peer.answer(JSON.readTree(line));
            } catch (Throwable error) {
                StringWriter trace = new StringWriter();
                error.printStackTrace(new PrintWriter(trace));
                answer = JSON.createObjectNode().put("error", error.toString()).put("trace", trace.toString());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        // Paimon's pools hold threads that are no daemons.
        System.exit(0);
    }

    private JsonNode answer(JsonNode command) throws Exception {
        switch (command.get("verb").asText()) {
            case "create":
                return create(command);
            case "write":
                return write(command);
            case "compact":
                return compact(command);
            case "alter":
                return alter(command);
            case "expire":
                return expire(command);
            case "tag":
                table(command).createTag(command.get("name").asText());
                return JSON.createObjectNode();
            case "untag":
                table(command).deleteTag(command.get("name").asText());
                return JSON.createObjectNode();
            case "read":
                return read(command);
            case "checksum":
                return checksum(command);
            case "encode":
                return encode(command);
            case "decode":
                return decode(command);
            default:
                throw new IllegalArgumentException("no such verb: " + command);
        }
    }

    /** The table of a command, with the command's options over its own. */
    private Table anyTable(JsonNode command) throws Exception {
        Map<String, String> options = new HashMap<>();
        JsonNode given = command.get("options");
        if (given != null) {
            given.fields().forEachRemaining(option -> options.put(option.getKey(), option.getValue().asText()));
        }
        return catalog.getTable(Identifier.fromString(command.get("table").asText())).copy(options);
    }

    private FileStoreTable table(JsonNode command) throws Exception {
        return (FileStoreTable) anyTable(command);
    }

    private JsonNode create(JsonNode command) throws Exception {
        Identifier id = Identifier.fromString(command.get("table").asText());
        catalog.createDatabase(id.getDatabaseName(), true);
        Schema.Builder schema = Schema.newBuilder();
        for (JsonNode column : command.get("columns")) {
            schema.column(column.get(0).asText(), DataTypeJsonParser.parseDataType(column.get(1)));
        }
        schema.partitionKeys(texts(command.get("partition_keys"))).primaryKey(texts(command.get("primary_keys")));
        command.get("options").fields().forEachRemaining(o -> schema.option(o.getKey(), o.getValue().asText()));
        catalog.createTable(id, schema.build(), false);
        return JSON.createObjectNode();
    }

    private static List<String> texts(JsonNode list) {
        List<String> texts = new ArrayList<>();
        list.forEach(text -> texts.add(text.asText()));
        return texts;
    }

    /** Writes the rows of a file of [kind, cells] lines as one commit; level 0 files only. */
    private JsonNode write(JsonNode command) throws Exception {
        FileStoreTable table = table(command).copy(Collections.singletonMap("write-only", "true"));
        List<DataType> types = table.rowType().getFieldTypes();
        StreamWriteBuilder builder = table.newStreamWriteBuilder().withCommitUser(UUID.randomUUID().toString());
        long rows = 0;
        try (StreamTableWrite write = (StreamTableWrite) builder.newWrite().withIOManager(IOManager.create(scratch));
                StreamTableCommit commit = builder.newCommit();
                BufferedReader lines = Files.newBufferedReader(Paths.get(command.get("rows").asText()))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode row = JSON.readTree(line);
                GenericRow values = row(row.get(1), types);
                values.setRowKind(RowKind.fromShortString(row.get(0).asText()));
                write.write(values);
                rows++;
            }
            commit.commit(commits, write.prepareCommit(true, commits));
            commits++;
        }
        return JSON.createObjectNode().put("rows", rows);
    }

    /** Compacts every bucket to the last level. */
    private JsonNode compact(JsonNode command) throws Exception {
        FileStoreTable table = table(command).copy(Collections.singletonMap("write-only", "false"));
        StreamWriteBuilder builder = table.newStreamWriteBuilder().withCommitUser(UUID.randomUUID().toString());
        Set<List<Object>> seen = new HashSet<>();
        try (StreamTableWrite write = (StreamTableWrite) builder.newWrite().withIOManager(IOManager.create(scratch));
                StreamTableCommit commit = builder.newCommit()) {
            for (Split split : table.newReadBuilder().newScan().plan().splits()) {
                DataSplit data = (DataSplit) split;
                if (seen.add(Arrays.asList(data.partition(), data.bucket()))) {
                    write.compact(data.partition(), data.bucket(), true);
                }
            }
            commit.commit(commits, write.prepareCommit(true, commits));
            commits++;
        }
        return JSON.createObjectNode().put("buckets", seen.size());
    }

    /** Changes the schema: ["add", path, type], ["drop", path], ["rename", path, name], ["type", path, type]; a path is a list of names. */
    private JsonNode alter(JsonNode command) throws Exception {
        List<SchemaChange> changes = new ArrayList<>();
        for (JsonNode change : command.get("changes")) {
            String[] path = texts(change.get(1)).toArray(new String[0]);
            switch (change.get(0).asText()) {
                case "add":
                    changes.add(SchemaChange.addColumn(path, DataTypeJsonParser.parseDataType(change.get(2)), null, null));
                    break;
                case "drop":
                    changes.add(SchemaChange.dropColumn(path));
                    break;
                case "rename":
                    changes.add(SchemaChange.renameColumn(path, change.get(2).asText()));
                    break;
                case "first":
                    changes.add(SchemaChange.updateColumnPosition(SchemaChange.Move.first(path[0])));
                    break;
                case "type":
                    changes.add(SchemaChange.updateColumnType(path, DataTypeJsonParser.parseDataType(change.get(2)), false));
                    break;
                default:
                    throw new IllegalArgumentException("no such change: " + change);
            }
        }
        catalog.alterTable(Identifier.fromString(command.get("table").asText()), changes, false);
        return JSON.createObjectNode();
    }

    /** Removes all snapshots but the newest ones, and the files that only the others used. */
    private JsonNode expire(JsonNode command) throws Exception {
        int keep = command.get("keep").asInt();
        ExpireConfig config = ExpireConfig.builder()
                .snapshotRetainMin(keep)
                .snapshotRetainMax(keep)
                .snapshotMaxDeletes(Integer.MAX_VALUE)
                .snapshotTimeRetain(Duration.ofMillis(1))
                .build();
        return JSON.createObjectNode().put("expired", table(command).newExpireSnapshots().config(config).expire());
    }

    /** Takes each row that is read. */
    private interface Sink {
        void take(InternalRow row) throws IOException;
    }

    /** Reads all rows, or those of a filter; `columns` are the ones to read, as they stand in the table without them. */
    private List<Split> each(JsonNode command, Table table, Sink sink) throws Exception {
        ReadBuilder builder = table.newReadBuilder();
        JsonNode filter = command.get("filter");
        if (filter != null && !filter.isNull()) {
            builder = builder.withFilter(predicate(table.rowType(), filter));
        }
        if (command.hasNonNull("columns")) {
            builder = builder.withProjection(table.rowType().getFieldIndices(texts(command.get("columns"))));
        }
        TableRead read = builder.newRead().withIOManager(IOManager.create(scratch));
        List<Split> splits = builder.newScan().plan().splits();
        for (Split split : splits) {
            try (RecordReader<InternalRow> reader = read.createReader(split)) {
                RecordReader.RecordIterator<InternalRow> batch;
                while ((batch = reader.readBatch()) != null) {
                    for (InternalRow row = batch.next(); row != null; row = batch.next()) {
                        sink.take(row);
                    }
                    batch.releaseBatch();
                }
            }
        }
        return splits;
    }

    /**
     * Reads rows into a file with one list of cells a line. Answers with the rows by metadata, too. A read of everything decodes all
     * manifests; others take them from the last such read (a file that went since then was missed by no read of everything).
     */
    private JsonNode read(JsonNode command) throws Exception {
        if (!command.hasNonNull("filter") && !command.hasNonNull("columns") && !command.path("options").fields().hasNext()) {
            manifests = freshCache();
        }
        Table table = anyTable(command);
        if (table instanceof FileStoreTable) {
            ((FileStoreTable) table).setManifestCache(manifests);
        }
        RowType type = table.rowType();
        if (command.hasNonNull("columns")) {
            type = type.project(texts(command.get("columns")));
        }
        List<DataType> types = type.getFieldTypes();
        InternalRow.FieldGetter[] getters = getters(types);
        try (BufferedWriter out = Files.newBufferedWriter(Paths.get(command.get("out").asText()));
                JsonGenerator json = JSON.getFactory().createGenerator(out)) {
            json.setRootValueSeparator(new SerializedString(""));
            List<Split> splits = each(command, table, row -> {
                json.writeStartArray();
                for (int i = 0; i < getters.length; i++) {
                    write(json, getters[i].getFieldOrNull(row), types.get(i));
                }
                json.writeEndArray();
                json.writeRaw('\n');
            });
            return JSON.createObjectNode().put("counted", counted(splits));
        }
    }

    /** Rows by metadata alone where every bucket can tell, else -1: what COUNT(*) is answered from. */
    private static long counted(List<Split> splits) {
        long rows = 0;
        for (Split split : splits) {
            if (!(split instanceof DataSplit) || !((DataSplit) split).rawConvertible()) {
                return -1;
            }
            rows += split.rowCount();
        }
        return rows;
    }

    /** Rows, and a checksum over all cells that knows which cells stand in one row, whatever the rows' order; see checksum.py. */
    private JsonNode checksum(JsonNode command) throws Exception {
        Table table = anyTable(command);
        List<DataType> types = table.rowType().getFieldTypes();
        InternalRow.FieldGetter[] getters = getters(types);
        long[] sum = new long[2];
        each(command, table, row -> {
            long state = 0;
            for (int i = 0; i < getters.length; i++) {
                JsonNode cell = cell(getters[i].getFieldOrNull(row), types.get(i));
                long hash = 0;
                long power = 1;
                for (byte b : (cell.isNull() ? "\0" : cell.asText()).getBytes(StandardCharsets.UTF_8)) {
                    power *= CHECKSUM_BASE;
                    hash += power * ((b & 0xff) + 1);
                }
                state = (state ^ hash) * CHECKSUM_MIX;
                state ^= state >>> 29;
            }
            sum[0] += state;
            sum[1]++;
        });
        return JSON.createObjectNode().put("rows", sum[1]).put("checksum", Long.toHexString(sum[0]));
    }

    /** [column, operator, cell] */
    private static Predicate predicate(RowType type, JsonNode filter) {
        PredicateBuilder builder = new PredicateBuilder(type);
        int column = builder.indexOf(filter.get(0).asText());
        Object literal = value(filter.get(2), type.getTypeAt(column));
        switch (filter.get(1).asText()) {
            case "=":
                return builder.equal(column, literal);
            case ">=":
                return builder.greaterOrEqual(column, literal);
            case "<":
                return builder.lessThan(column, literal);
            default:
                throw new IllegalArgumentException("no such operator: " + filter);
        }
    }

    /** BinaryRow bytes (with the arity prefix), hash and buckets of rows of the given types. */
    private JsonNode encode(JsonNode command) throws Exception {
        List<DataType> types = types(command);
        RowType type = RowType.of(types.toArray(new DataType[0]));
        InternalRowSerializer serializer = new InternalRowSerializer(type);
        ArrayNode answers = JSON.createArrayNode();
        for (JsonNode cells : command.get("rows")) {
            BinaryRow row = serializer.toBinaryRow(row(cells, types));
            answers.add(described(row, type, command.get("buckets")).put("bytes", hex(SerializationUtils.serializeBinaryRow(row))));
        }
        return JSON.createObjectNode().set("rows", answers);
    }

    private static ObjectNode described(BinaryRow row, RowType type, JsonNode counts) {
        BucketFunction function = BucketFunction.create(CoreOptions.BucketFunctionType.DEFAULT, type);
        ObjectNode answer = JSON.createObjectNode().put("hash", row.hashCode());
        ArrayNode buckets = answer.putArray("buckets");
        counts.forEach(count -> buckets.add(function.bucket(row, count.asInt())));
        return answer;
    }

    /** What Java makes of BinaryRow bytes: their cells, the same row encoded anew from them, and its buckets. */
    private JsonNode decode(JsonNode command) throws Exception {
        List<DataType> types = types(command);
        RowType type = RowType.of(types.toArray(new DataType[0]));
        InternalRowSerializer serializer = new InternalRowSerializer(type);
        InternalRow.FieldGetter[] getters = getters(types);
        ArrayNode answers = JSON.createArrayNode();
        for (JsonNode bytes : command.get("rows")) {
            BinaryRow row = SerializationUtils.deserializeBinaryRow(unhex(bytes.asText()));
            ArrayNode cells = cells(row, types, getters);
            BinaryRow again = serializer.toBinaryRow(row(cells, types));
            ObjectNode answer = described(again, type, command.get("buckets"));
            answer.put("bytes", hex(SerializationUtils.serializeBinaryRow(again))).set("cells", cells);
            answers.add(answer);
        }
        return JSON.createObjectNode().set("rows", answers);
    }

    private static List<DataType> types(JsonNode command) {
        List<DataType> types = new ArrayList<>();
        command.get("types").forEach(type -> types.add(DataTypeJsonParser.parseDataType(type)));
        return types;
    }

    private static GenericRow row(JsonNode cells, List<DataType> types) {
        if (cells.size() != types.size()) {
            throw new IllegalArgumentException(cells.size() + " cells for " + types.size() + " columns");
        }
        GenericRow row = new GenericRow(types.size());
        for (int i = 0; i < types.size(); i++) {
            row.setField(i, value(cells.get(i), types.get(i)));
        }
        return row;
    }

    private static Object value(JsonNode cell, DataType type) {
        if (cell.isNull()) {
            return null;
        }
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return cell.asBoolean();
            case TINYINT:
                return (byte) cell.asInt();
            case SMALLINT:
                return (short) cell.asInt();
            case INTEGER:
            case DATE:
            case TIME_WITHOUT_TIME_ZONE:
                return cell.asInt();
            case BIGINT:
                return cell.asLong();
            case FLOAT:
                return Float.intBitsToFloat(Integer.parseUnsignedInt(cell.asText(), 16));
            case DOUBLE:
                return Double.longBitsToDouble(Long.parseUnsignedLong(cell.asText(), 16));
            case DECIMAL:
                DecimalType decimal = (DecimalType) type;
                return Decimal.fromBigDecimal(new BigDecimal(cell.asText()), decimal.getPrecision(), decimal.getScale());
            case CHAR:
            case VARCHAR:
                return BinaryString.fromString(cell.asText());
            case BINARY:
            case VARBINARY:
                return unhex(cell.asText());
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return timestamp(cell);
            case ARRAY:
                List<Object> elements = new ArrayList<>();
                cell.forEach(element -> elements.add(value(element, ((ArrayType) type).getElementType())));
                return new GenericArray(elements.toArray());
            case MAP:
                return map(cell, ((MapType) type).getKeyType(), ((MapType) type).getValueType());
            case MULTISET:
                return map(cell, ((MultisetType) type).getElementType(), DataTypes.INT());
            case ROW:
                return row(cell, ((RowType) type).getFieldTypes());
            default:
                throw new IllegalArgumentException("no cells of " + type);
        }
    }

    /** Nanoseconds of a year like 9999 take more than 64 bits. */
    private static Timestamp timestamp(JsonNode cell) {
        if (cell.canConvertToLong()) {
            long nanos = cell.asLong();
            return Timestamp.fromEpochMillis(Math.floorDiv(nanos, NANOS_PER_MILLI), (int) Math.floorMod(nanos, NANOS_PER_MILLI));
        }
        BigInteger[] parts = cell.bigIntegerValue().divideAndRemainder(BIG_NANOS_PER_MILLI);
        return parts[1].signum() < 0
                ? Timestamp.fromEpochMillis(parts[0].longValueExact() - 1, parts[1].intValueExact() + (int) NANOS_PER_MILLI)
                : Timestamp.fromEpochMillis(parts[0].longValueExact(), parts[1].intValueExact());
    }

    private static GenericMap map(JsonNode pairs, DataType key, DataType item) {
        Map<Object, Object> map = new LinkedHashMap<>();
        pairs.forEach(pair -> map.put(value(pair.get(0), key), value(pair.get(1), item)));
        return new GenericMap(map);
    }

    private static InternalRow.FieldGetter[] getters(List<DataType> types) {
        InternalRow.FieldGetter[] getters = new InternalRow.FieldGetter[types.size()];
        for (int i = 0; i < getters.length; i++) {
            getters[i] = InternalRow.createFieldGetter(types.get(i), i);
        }
        return getters;
    }

    private static ArrayNode cells(InternalRow row, List<DataType> types, InternalRow.FieldGetter[] getters) {
        ArrayNode cells = JSON.createArrayNode();
        for (int i = 0; i < getters.length; i++) {
            cells.add(cell(getters[i].getFieldOrNull(row), types.get(i)));
        }
        return cells;
    }

    private static JsonNode cell(Object value, DataType type) {
        JsonNodeFactory make = JSON.getNodeFactory();
        if (value == null) {
            return make.nullNode();
        }
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return make.booleanNode((Boolean) value);
            case TINYINT:
            case SMALLINT:
            case INTEGER:
            case DATE:
            case TIME_WITHOUT_TIME_ZONE:
            case BIGINT:
                return make.numberNode(((Number) value).longValue());
            case FLOAT:
                return make.textNode(HEX.toHexDigits(Float.floatToRawIntBits((Float) value)));
            case DOUBLE:
                return make.textNode(HEX.toHexDigits(Double.doubleToRawLongBits((Double) value)));
            case DECIMAL:
                return make.textNode(((Decimal) value).toBigDecimal().toPlainString());
            case CHAR:
            case VARCHAR:
                return make.textNode(value.toString());
            case BINARY:
            case VARBINARY:
                return make.textNode(hex((byte[]) value));
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return make.numberNode(nanos((Timestamp) value));
            case ARRAY:
                return elements((InternalArray) value, ((ArrayType) type).getElementType());
            case MAP:
                return pairs((InternalMap) value, ((MapType) type).getKeyType(), ((MapType) type).getValueType());
            case MULTISET:
                return pairs((InternalMap) value, ((MultisetType) type).getElementType(), DataTypes.INT());
            case ROW:
                List<DataType> types = ((RowType) type).getFieldTypes();
                return cells((InternalRow) value, types, getters(types));
            default:
                throw new IllegalArgumentException("no cells of " + type);
        }
    }

    private static BigInteger nanos(Timestamp at) {
        return BigInteger.valueOf(at.getMillisecond()).multiply(BIG_NANOS_PER_MILLI).add(BigInteger.valueOf(at.getNanoOfMillisecond()));
    }

    /** What `cell` makes, without making it: most of a long run is this. */
    private static void write(JsonGenerator out, Object value, DataType type) throws IOException {
        if (value == null) {
            out.writeNull();
            return;
        }
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                out.writeBoolean((Boolean) value);
                break;
            case TINYINT:
            case SMALLINT:
            case INTEGER:
            case DATE:
            case TIME_WITHOUT_TIME_ZONE:
            case BIGINT:
                out.writeNumber(((Number) value).longValue());
                break;
            case CHAR:
            case VARCHAR:
                out.writeString(value.toString());
                break;
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                Timestamp at = (Timestamp) value;
                if (Math.abs(at.getMillisecond()) < Long.MAX_VALUE / NANOS_PER_MILLI - 1) {
                    out.writeNumber(at.getMillisecond() * NANOS_PER_MILLI + at.getNanoOfMillisecond());
                } else {
                    out.writeNumber(nanos(at));
                }
                break;
            case ARRAY:
                DataType element = ((ArrayType) type).getElementType();
                InternalArray.ElementGetter getter = InternalArray.createElementGetter(element);
                InternalArray array = (InternalArray) value;
                out.writeStartArray();
                for (int i = 0; i < array.size(); i++) {
                    write(out, getter.getElementOrNull(array, i), element);
                }
                out.writeEndArray();
                break;
            case ROW:
                List<DataType> types = ((RowType) type).getFieldTypes();
                InternalRow.FieldGetter[] getters = getters(types);
                out.writeStartArray();
                for (int i = 0; i < getters.length; i++) {
                    write(out, getters[i].getFieldOrNull((InternalRow) value), types.get(i));
                }
                out.writeEndArray();
                break;
            case MAP:
            case MULTISET:
                out.writeTree(cell(value, type));
                break;
            default:
                out.writeString(cell(value, type).asText());
        }
    }

    private static ArrayNode elements(InternalArray array, DataType type) {
        InternalArray.ElementGetter getter = InternalArray.createElementGetter(type);
        ArrayNode elements = JSON.createArrayNode();
        for (int i = 0; i < array.size(); i++) {
            elements.add(cell(getter.getElementOrNull(array, i), type));
        }
        return elements;
    }

    /** Sorted by the text of the key, as UTF-8. */
    private static ArrayNode pairs(InternalMap map, DataType key, DataType item) {
        ArrayNode keys = elements(map.keyArray(), key);
        ArrayNode items = elements(map.valueArray(), item);
        List<Integer> order = new ArrayList<>();
        List<byte[]> texts = new ArrayList<>();
        for (int i = 0; i < keys.size(); i++) {
            order.add(i);
            texts.add(keys.get(i).toString().getBytes(StandardCharsets.UTF_8));
        }
        order.sort((a, b) -> Arrays.compareUnsigned(texts.get(a), texts.get(b)));
        ArrayNode pairs = JSON.createArrayNode();
        order.forEach(i -> pairs.addArray().add(keys.get(i)).add(items.get(i)));
        return pairs;
    }

    private static String hex(byte[] bytes) {
        return HEX.formatHex(bytes);
    }

    private static byte[] unhex(String text) {
        return HEX.parseHex(text);
    }
}

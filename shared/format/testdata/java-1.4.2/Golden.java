// Makes the table of this directory: see README.md. Usage: java -cp '<jars>:.' Golden <warehouse directory>
import java.math.BigDecimal;
import java.util.Collections;
import org.apache.paimon.catalog.*;
import org.apache.paimon.data.*;
import org.apache.paimon.disk.IOManager;
import org.apache.paimon.options.Options;
import org.apache.paimon.schema.Schema;
import org.apache.paimon.table.Table;
import org.apache.paimon.table.sink.*;
import org.apache.paimon.types.*;

public class Golden {
    public static void main(String[] args) throws Exception {
        Options options = new Options();
        options.set("warehouse", "file://" + args[0]);
        Catalog catalog = CatalogFactory.createCatalog(CatalogContext.create(options));
        catalog.createDatabase("db", true);
        Identifier id = Identifier.create("db", "golden");
        catalog.createTable(id, schema(), false);
        Table table = catalog.getTable(id);
        for (int round = 0; round < 3; round++) {
            String writeOnly = round < 2 ? "true" : "false";
            StreamWriteBuilder builder =
                    table.copy(Collections.singletonMap("write-only", writeOnly)).newStreamWriteBuilder().withCommitUser("golden");
            StreamTableWrite write = (StreamTableWrite) builder.newWrite().withIOManager(IOManager.create(args[0] + "/tmp"));
            if (round < 2) {
                for (int i = 0; i < 10; i++) {
                    write.write(row(round, i));
                }
            } else {
                compact(write);
            }
            StreamTableCommit commit = builder.newCommit();
            commit.commit(round, write.prepareCommit(true, round));
            write.close();
            commit.close();
        }
    }

    private static Schema schema() {
        DataType nested = DataTypes.ROW(DataTypes.FIELD(0, "x", DataTypes.INT()), DataTypes.FIELD(1, "y", DataTypes.ARRAY(DataTypes.DOUBLE())));
        return Schema.newBuilder()
                .column("dt", DataTypes.DATE())
                .column("region", DataTypes.STRING())
                .column("k", DataTypes.BIGINT())
                .column("n", DataTypes.STRING(), "the name")
                .column("amount", DataTypes.DECIMAL(20, 2))
                .column("at", DataTypes.TIMESTAMP(6))
                .column("zoned", DataTypes.TIMESTAMP_WITH_LOCAL_TIME_ZONE(3))
                .column("ok", DataTypes.BOOLEAN())
                .column("raw", DataTypes.BYTES())
                .column("tags", DataTypes.ARRAY(DataTypes.STRING()))
                .column("attrs", DataTypes.MAP(DataTypes.STRING().notNull(), nested))
                .column("c", DataTypes.CHAR(3))
                .column("vc", DataTypes.VARCHAR(9))
                .column("t", DataTypes.TIME(3))
                .column("f", DataTypes.FLOAT())
                .column("si", DataTypes.SMALLINT())
                .column("ms", DataTypes.MULTISET(DataTypes.STRING()))
                .partitionKeys("dt", "region")
                .primaryKey("dt", "region", "k", "n")
                .option("bucket", "2")
                .option("snapshot.time-retained", "7 d")
                .comment("made by Java")
                .build();
    }

    private static GenericRow row(int round, int i) {
        boolean isNull = i % 5 == 4;
        return GenericRow.ofKind(
                round == 1 && i == 2 ? RowKind.DELETE : RowKind.INSERT,
                19700 + i % 2,
                BinaryString.fromString(i % 2 == 0 ? "eu/x" : "é b"),
                (long) (i * 7919 - 3),
                BinaryString.fromString("customer-" + i),
                isNull ? null : Decimal.fromBigDecimal(new BigDecimal("12345678901234567.89"), 20, 2),
                isNull ? null : Timestamp.fromMicros(1700000000123456L + i),
                Timestamp.fromEpochMillis(1700000000123L),
                i % 2 == 0,
                new byte[] {1, 2, (byte) i},
                null,
                null,
                BinaryString.fromString("abc"),
                BinaryString.fromString("é" + i),
                i,
                1.5f,
                (short) -i,
                null);
    }

    private static void compact(StreamTableWrite write) throws Exception {
        for (int i = 0; i < 2; i++) {
            for (int bucket = 0; bucket < 2; bucket++) {
                BinaryRow partition = new BinaryRow(2);
                BinaryRowWriter writer = new BinaryRowWriter(partition);
                writer.writeInt(0, 19700 + i);
                writer.writeString(1, BinaryString.fromString(i == 0 ? "eu/x" : "é b"));
                writer.complete();
                write.compact(partition, bucket, true);
            }
        }
    }
}

import java.time.ZoneOffset;
import java.util.*;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;

/** Flink with Paimon's connector, in batch mode, in this JVM. */
public class FlinkPeer extends SqlPeer {
    private final TableEnvironment flink;

    private FlinkPeer(String warehouse) {
        flink = TableEnvironment.create(EnvironmentSettings.inBatchMode());
        flink.getConfig().setLocalTimeZone(ZoneOffset.UTC);
        // Without it INSERT and CALL return before anything ran.
        flink.getConfig().set("table.dml-sync", "true");
        flink.getConfig().set("parallelism.default", "1");
        flink.executeSql("CREATE CATALOG paimon WITH ('type' = 'paimon', 'cache-enabled' = 'false', 'warehouse' = 'file://" + warehouse + "')");
        flink.executeSql("USE CATALOG paimon");
    }

    /** Arguments: directory of the warehouse. */
    public static void main(String[] args) throws Exception {
        new FlinkPeer(args[0]).serve();
    }

    @Override
    Iterator<List<Object>> sql(String statement) {
        List<List<Object>> rows = new ArrayList<>();
        // Read to the end, and so closed; to close the answer to an INSERT would cancel a job whose cluster is gone.
        flink.executeSql(statement).collect().forEachRemaining(row -> rows.add(values(row)));
        return rows.iterator();
    }

    private static List<Object> values(Row row) {
        List<Object> values = new ArrayList<>();
        for (int i = 0; i < row.getArity(); i++) {
            values.add(plain(row.getField(i)));
        }
        return values;
    }

    private static Object plain(Object value) {
        if (value instanceof Row) {
            return values((Row) value);
        } else if (value instanceof Object[]) {
            List<Object> items = new ArrayList<>();
            Arrays.asList((Object[]) value).forEach(item -> items.add(plain(item)));
            return items;
        } else if (value instanceof Map) {
            Map<Object, Object> map = new LinkedHashMap<>();
            ((Map<?, ?>) value).forEach((key, item) -> map.put(plain(key), plain(item)));
            return map;
        }
        return value;
    }
}

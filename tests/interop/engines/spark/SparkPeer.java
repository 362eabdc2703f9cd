import java.util.*;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import scala.collection.JavaConverters;

/** Spark with Paimon's connector, in this JVM. */
public class SparkPeer extends SqlPeer {
    private final SparkSession spark;

    private SparkPeer(String warehouse, String scratch) {
        spark = SparkSession.builder()
                .master("local[2]")
                .config("spark.ui.enabled", "false")
                .config("spark.driver.host", "127.0.0.1")
                .config("spark.local.dir", scratch)
                .config("spark.sql.warehouse.dir", scratch)
                .config("spark.sql.shuffle.partitions", "2")
                .config("spark.sql.session.timeZone", "UTC")
                .config("spark.sql.datetime.java8API.enabled", "true")
                // CHAR(n) as it is stored, not filled up with blanks.
                .config("spark.sql.readSideCharPadding", "false")
                .config("spark.sql.extensions", "org.apache.paimon.spark.extensions.PaimonSparkSessionExtensions")
                .config("spark.sql.catalog.paimon", "org.apache.paimon.spark.SparkCatalog")
                .config("spark.sql.catalog.paimon.warehouse", "file://" + warehouse)
                .config("spark.sql.catalog.paimon.cache-enabled", "false")
                .getOrCreate();
        spark.sql("USE paimon");
    }

    /** Arguments: directory of the warehouse, directory for Spark's own files. */
    public static void main(String[] args) throws Exception {
        new SparkPeer(args[0], args[1]).serve();
    }

    @Override
    Iterator<List<Object>> sql(String statement) {
        List<List<Object>> rows = new ArrayList<>();
        for (Row row : spark.sql(statement).collectAsList()) {
            rows.add(values(row));
        }
        return rows.iterator();
    }

    private static List<Object> values(Row row) {
        List<Object> values = new ArrayList<>();
        for (int i = 0; i < row.length(); i++) {
            values.add(plain(row.get(i)));
        }
        return values;
    }

    private static Object plain(Object value) {
        if (value instanceof Row) {
            return values((Row) value);
        } else if (value instanceof scala.collection.Seq) {
            List<Object> items = new ArrayList<>();
            JavaConverters.seqAsJavaList((scala.collection.Seq<?>) value).forEach(item -> items.add(plain(item)));
            return items;
        } else if (value instanceof scala.collection.Map) {
            Map<Object, Object> map = new LinkedHashMap<>();
            JavaConverters.mapAsJavaMap((scala.collection.Map<?, ?>) value).forEach((key, item) -> map.put(plain(key), plain(item)));
            return map;
        }
        return value;
    }
}

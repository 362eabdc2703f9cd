import java.io.*;
import java.lang.reflect.Array;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.*;
import java.util.*;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.databind.*;
import org.apache.paimon.shade.jackson2.com.fasterxml.jackson.databind.node.*;

/**
 * An engine that speaks SQL: one JSON command a line on standard input, one JSON answer a line on standard output. A statement's rows
 * are cells in the form that canon.py describes; they go to the file `out`, or into the answer. Started once, since an engine takes
 * seconds to come up.
 */
abstract class SqlPeer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final JsonNodeFactory MAKE = JSON.getNodeFactory();
    private static final BigInteger NANOS = BigInteger.valueOf(1_000_000_000);

    /** Runs a statement to its end. Values are of java.lang, java.math, java.time and java.util, arrays, and bytes; rows inside are lists. */
    abstract Iterator<List<Object>> sql(String statement) throws Exception;

    void serve() throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode answer;
            try {
                answer = answer(JSON.readTree(line));
            } catch (Throwable error) {
                StringWriter trace = new StringWriter();
                error.printStackTrace(new PrintWriter(trace));
                answer = JSON.createObjectNode().put("error", error.toString()).put("trace", trace.toString());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        // The pools of the engines hold threads that are no daemons.
        System.exit(0);
    }

    private JsonNode answer(JsonNode command) throws Exception {
        Iterator<List<Object>> rows = sql(command.get("sql").asText());
        JsonNode file = command.get("out");
        if (file == null || file.isNull()) {
            ArrayNode answer = JSON.createArrayNode();
            rows.forEachRemaining(row -> answer.add(cell(row)));
            return JSON.createObjectNode().set("rows", answer);
        }
        long count = 0;
        try (BufferedWriter out = Files.newBufferedWriter(Paths.get(file.asText()))) {
            for (; rows.hasNext(); count++) {
                out.write(JSON.writeValueAsString(cell(rows.next())));
                out.write('\n');
            }
        }
        return JSON.createObjectNode().put("rows", count);
    }

    private static JsonNode cell(Object value) {
        if (value == null) {
            return MAKE.nullNode();
        } else if (value instanceof Boolean) {
            return MAKE.booleanNode((Boolean) value);
        } else if (value instanceof Float) {
            return MAKE.textNode(String.format("%08x", Float.floatToRawIntBits((Float) value)));
        } else if (value instanceof Double) {
            return MAKE.textNode(String.format("%016x", Double.doubleToRawLongBits((Double) value)));
        } else if (value instanceof BigDecimal) {
            return MAKE.textNode(((BigDecimal) value).toPlainString());
        } else if (value instanceof Number) {
            return MAKE.numberNode(((Number) value).longValue());
        } else if (value instanceof String) {
            return MAKE.textNode((String) value);
        } else if (value instanceof byte[]) {
            StringBuilder hex = new StringBuilder();
            for (byte b : (byte[]) value) {
                hex.append(String.format("%02x", b));
            }
            return MAKE.textNode(hex.toString());
        } else if (value instanceof LocalDate) {
            return MAKE.numberNode(((LocalDate) value).toEpochDay());
        } else if (value instanceof LocalTime) {
            return MAKE.numberNode(((LocalTime) value).toNanoOfDay() / 1_000_000);
        } else if (value instanceof LocalDateTime) {
            return cell(((LocalDateTime) value).toInstant(ZoneOffset.UTC));
        } else if (value instanceof Instant) {
            Instant at = (Instant) value;
            return MAKE.numberNode(BigInteger.valueOf(at.getEpochSecond()).multiply(NANOS).add(BigInteger.valueOf(at.getNano())));
        }
        return cells(value);
    }

    private static JsonNode cells(Object value) {
        ArrayNode cells = JSON.createArrayNode();
        if (value instanceof Map) {
            ((Map<?, ?>) value).forEach((key, item) -> cells.add(cells(Arrays.asList(key, item))));
        } else if (value instanceof List) {
            ((List<?>) value).forEach(item -> cells.add(cell(item)));
        } else if (value.getClass().isArray()) {
            for (int i = 0; i < Array.getLength(value); i++) {
                cells.add(cell(Array.get(value, i)));
            }
        } else {
            throw new IllegalArgumentException("no cell of " + value.getClass());
        }
        return cells;
    }
}

import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import kafka.tools.StorageTool;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Utils;

/**
 * One Kafka broker and controller in this process: {@code Kafka FOLDER [ARGUMENT…]}, in which server.properties lies. The
 * first time it formats its data, with these further arguments: users with passwords are made so.
 */
public final class Kafka {
    /** Any 16 bytes in URL-safe base64: brokers that name another cluster are refused. */
    private static final String CLUSTER_ID = "Y3VzdG9keS1pbi10ZXN0cw";

    public static void main(String[] arguments) throws Exception {
        boolean rehearsal = Boolean.getBoolean("rehearsal");
        Path file = Path.of(arguments[0], "server.properties");
        if (rehearsal) {
            Files.createDirectories(file.getParent());
            Files.writeString(file, rehearsed(file.resolveSibling("data")));
        }
        Properties properties = Utils.loadProps(file.toString());
        if (Files.notExists(Path.of(properties.getProperty("log.dirs")))) {
            List<String> format = new ArrayList<>(List.of("format", "-t", CLUSTER_ID, "-c", file.toString()));
            if (!rehearsal) {
                format.addAll(Arrays.asList(arguments).subList(1, arguments.length));
            }
            int code = StorageTool.execute(format.toArray(String[]::new), System.out);
            if (code != 0) {
                System.exit(code);
            }
        }
        KafkaRaftServer server = new KafkaRaftServer(KafkaConfig.fromProps(properties, false), Time.SYSTEM);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        server.startup();
        if (rehearsal) {
            System.exit(0);
        }
        server.awaitShutdown();
    }

    private static String rehearsed(Path data) throws IOException {
        try (ServerSocket broker = new ServerSocket(0); ServerSocket controller = new ServerSocket(0)) {
            return "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
                    + "controller.quorum.voters=1@127.0.0.1:" + controller.getLocalPort() + "\n"
                    + "listeners=PLAINTEXT://127.0.0.1:" + broker.getLocalPort()
                    + ",CONTROLLER://127.0.0.1:" + controller.getLocalPort() + "\n"
                    + "log.dirs=" + data + "\n";
        }
    }
}

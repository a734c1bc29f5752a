import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.index.mapper.MapperExtrasPlugin;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.reindex.ReindexPlugin;
import org.elasticsearch.join.ParentJoinPlugin;
import org.elasticsearch.transport.Netty4Plugin;

/** One Elasticsearch node in this process: {@code Elasticsearch FOLDER name=value…}, the settings of elasticsearch.yml. */
public final class Elasticsearch extends Node {
    private static final List<Class<? extends Plugin>> PLUGINS =
            List.of(Netty4Plugin.class, MapperExtrasPlugin.class, ReindexPlugin.class, ParentJoinPlugin.class);

    private Elasticsearch(Settings settings) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node-1"), PLUGINS, false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder()
                .put("path.home", arguments[0])
                .put("path.data", arguments[0] + "/data")
                .put("cluster.name", "custody")
                .put("discovery.type", "single-node")
                .put("http.type", "netty4")
                .put("transport.type", "netty4");
        for (int i = 1; i < arguments.length; i++) {
            String[] setting = arguments[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        Elasticsearch node = new Elasticsearch(settings.build());
        node.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }));
        if (Boolean.getBoolean("rehearsal")) {
            System.exit(0);
        }
        new CountDownLatch(1).await();
    }
}

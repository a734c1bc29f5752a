import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import net.schmizz.sshj.SSHClient;
import net.schmizz.sshj.connection.channel.direct.Session;
import net.schmizz.sshj.sftp.SFTPException;
import net.schmizz.sshj.transport.verification.PromiscuousVerifier;

/** sshj, which IntelliJ and Gradle's plugins have inside, as a client of the proxy: PORT HOME FOLDER. */
class Sshj {
    public static void main(String[] arguments) throws IOException {
        var folder = Path.of(arguments[2]);
        try (var client = new SSHClient()) {
            client.addHostKeyVerifier(new PromiscuousVerifier());
            client.connect("127.0.0.1", Integer.parseInt(arguments[0]));
            // The certificate beside the key is found by its name.
            client.authPublickey("root+web-1", arguments[1] + "/id");

            try (var session = client.startSession()) {
                // No input: sshd says `eow@openssh.com` when the program has ended.
                var done = session.exec("echo out; echo err >&2; exit 42");
                var out = text(done);
                var err = new String(done.getErrorStream().readAllBytes()).trim();
                done.join();
                System.out.println("exec " + out + " " + err + " " + done.getExitStatus());
            }
            var data = "by sshj".repeat(300_000).substring(0, 2_000_000).getBytes();
            try (var session = client.startSession()) {
                var done = session.exec("cat");
                var writer = new Thread(() -> write(done, data));
                writer.start();
                var back = done.getInputStream().readAllBytes();
                System.out.println("bytes " + (Arrays.equals(back, data) ? back.length : "other"));
            }
            var sessions = new ArrayList<Session.Command>();
            for (var n = 0; n < 8; n++) sessions.add(client.startSession().exec("read x; echo " + n));
            var said = new HashSet<String>();
            for (var one : sessions) {
                write(one, "go\n".getBytes());
                said.add(text(one));
                one.close();
            }
            System.out.println("channels " + said.size());
            try (var session = client.startSession()) {
                session.allocatePTY("xterm", 111, 33, 0, 0, Map.of());
                System.out.println("terminal " + text(session.exec("stty size")));
            }

            try (var sftp = client.newSFTPClient()) {
                sftp.put(folder.resolve("file").toString(), folder.resolve("put").toString());
                sftp.get(folder.resolve("put").toString(), folder.resolve("got").toString());
                var same = Files.mismatch(folder.resolve("file"), folder.resolve("got")) == -1;
                var missing = -1;
                try (var file = sftp.open(folder.resolve("missing").toString())) {
                    missing = 0;
                } catch (SFTPException refused) {
                    missing = refused.getStatusCode().getCode();
                }
                var listed = sftp.ls(folder.toString()).stream().anyMatch(entry -> entry.getName().equals("put"));
                System.out.println("files " + same + " " + missing + " " + listed);
            }
        }
    }

    static String text(Session.Command command) throws IOException {
        return new String(command.getInputStream().readAllBytes()).trim();
    }

    static void write(Session.Command command, byte[] data) {
        try (var input = command.getOutputStream()) {
            input.write(data);
        } catch (IOException failed) {
            throw new java.io.UncheckedIOException(failed);
        }
    }
}

import com.jcraft.jsch.ChannelExec;
import com.jcraft.jsch.ChannelSftp;
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Session;
import com.jcraft.jsch.SftpException;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;

/** JSch (mwiede's), which Ant, Eclipse and much else have inside, as a client of the proxy, keys renewed: PORT HOME FOLDER. */
class Jsch {
    public static void main(String[] arguments) throws Exception {
        var folder = arguments[2];
        var jsch = new JSch();
        jsch.addIdentity(arguments[1] + "/id", arguments[1] + "/id-cert.pub", (byte[]) null);
        var session = jsch.getSession("root+web-1", "127.0.0.1", Integer.parseInt(arguments[0]));
        session.setConfig("StrictHostKeyChecking", "no");
        session.setServerAliveInterval(200);
        session.connect(20_000);

        var err = new ByteArrayOutputStream();
        var done = exec(session, "echo out; echo err >&2; exit 42", new byte[0], err);
        System.out.println("exec " + done.out().trim() + " " + err.toString().trim() + " " + done.status());
        session.rekey();
        var data = "by JSch".repeat(300_000).substring(0, 2_000_000).getBytes();
        var back = exec(session, "cat", data, err).out().getBytes();
        System.out.println("bytes " + (Arrays.equals(back, data) ? back.length : "other"));
        var said = new HashSet<String>();
        var running = new ArrayList<Thread>();
        for (var n = 0; n < 8; n++) {
            var command = "read x; echo " + n;
            var one = new Thread(() -> {
                var out = exec(session, command, "go\n".getBytes(), new ByteArrayOutputStream());
                synchronized (said) {
                    said.add(out.out());
                }
            });
            one.start();
            running.add(one);
        }
        for (var one : running) one.join();
        System.out.println("channels " + said.size());
        var terminal = (ChannelExec) session.openChannel("exec");
        terminal.setPty(true);
        terminal.setPtySize(111, 33, 0, 0);
        terminal.setCommand("stty size");
        var shown = terminal.getInputStream();
        terminal.connect();
        System.out.println("terminal " + new String(shown.readAllBytes()).trim());

        var sftp = (ChannelSftp) session.openChannel("sftp");
        sftp.connect();
        sftp.put(folder + "/file", folder + "/put");
        sftp.get(folder + "/put", folder + "/got");
        var same = Files.mismatch(Path.of(folder, "file"), Path.of(folder, "got")) == -1;
        var missing = 0;
        try {
            sftp.get(folder + "/missing").close();
        } catch (SftpException refused) {
            missing = refused.id;
        }
        var listed = sftp.ls(folder).stream().anyMatch(entry -> entry.getFilename().equals("put"));
        System.out.println("files " + same + " " + missing + " " + listed);
        session.disconnect();
    }

    record Done(String out, int status) {}

    static Done exec(Session session, String command, byte[] input, ByteArrayOutputStream err) {
        try {
            var channel = (ChannelExec) session.openChannel("exec");
            channel.setCommand(command);
            channel.setInputStream(new ByteArrayInputStream(input));
            channel.setErrStream(err);
            var output = channel.getInputStream();
            channel.connect();
            var out = new String(output.readAllBytes());
            while (!channel.isClosed()) Thread.sleep(5);
            var status = channel.getExitStatus();
            channel.disconnect();
            return new Done(out, status);
        } catch (Exception failed) {
            throw new IllegalStateException(failed);
        }
    }
}

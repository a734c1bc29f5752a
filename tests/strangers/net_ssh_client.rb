# net-ssh and net-sftp of Ruby (Capistrano, Vagrant, Chef) as clients of the proxy, keys renewed: PORT HOME FOLDER.
require 'net/sftp'

port, home, folder = ARGV
options = {
  port: port.to_i, keys: ["#{home}/id"], keys_only: true, auth_methods: %w[publickey], config: false,
  non_interactive: true, verify_host_key: :never, use_agent: false, timeout: 20, rekey_blocks_limit: 20_000
}
Net::SSH.start('127.0.0.1', 'root+web-1', options) do |ssh|
  out, err, code = ''.b, ''.b, nil
  run = lambda do |command, input = '', terminal = nil|
    ssh.open_channel do |channel|
      channel.request_pty(terminal) if terminal
      channel.exec(command) do |running, _|
        running.on_data { |_, data| out << data }
        running.on_extended_data { |_, _, data| err << data }
        running.on_request('exit-status') { |_, status| code = status.read_long }
        running.send_data(input)
        running.eof! unless terminal
      end
    end
  end
  run.call('echo out; echo err >&2; exit 42').wait
  puts "exec #{out.strip} #{err.strip} #{code}"
  data = 'by net-ssh' * 200_000
  out = ''.b
  run.call('cat', data).wait
  puts "bytes #{out == data ? out.size : 'other'}"
  out = ''.b
  8.times { |n| run.call("read x; echo #{n}", "go\n") }
  ssh.loop
  puts "channels #{out.split.uniq.size}"
  out = ''.b
  run.call('stty size', '', chars_wide: 111, chars_high: 33).wait
  puts "terminal #{out.strip}"

  sftp = ssh.sftp.connect!
  sftp.upload!("#{folder}/file", "#{folder}/put")
  sftp.download!("#{folder}/put", "#{folder}/got")
  same = File.binread("#{folder}/got") == File.binread("#{folder}/file")
  missing = begin
    sftp.open!("#{folder}/missing")
  rescue Net::SFTP::StatusException => e
    e.code
  end
  puts "files #{same} #{missing} #{sftp.dir.entries(folder).any? { |entry| entry.name == 'put' }}"
end

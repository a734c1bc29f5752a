"""Twisted Conch as a client of the proxy: PORT USER, the password at standard input. It knows no certificates."""

import sys

from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.protocol import ClientFactory

port, user, password = int(sys.argv[1]), sys.argv[2], sys.stdin.read()


class Channel(SSHChannel):
    name = b"session"
    said, code = b"", None

    def channelOpen(self, _):
        self.conn.sendRequest(self, "exec", NS(b"cat; exit 7"), wantReply=True).addCallback(self.began)

    def began(self, _):
        self.write(b"by twisted")
        self.conn.sendEOF(self)

    def dataReceived(self, data):
        self.said += data

    def request_exit_status(self, data):
        self.code = int.from_bytes(data, "big")

    def closed(self):
        print(self.said.decode(), self.code)
        self.conn.transport.loseConnection()


class Connection(SSHConnection):
    def serviceStarted(self):
        self.openChannel(Channel(conn=self))


class Login(SSHUserAuthClient):
    def getPublicKey(self):
        return None

    def getGenericAnswers(self, name, instruction, prompts):
        return succeed([user, password])


class Transport(SSHClientTransport):
    def verifyHostKey(self, key, fingerprint):
        return succeed(True)

    def connectionSecure(self):
        self.requestService(Login(b"root+web-1", Connection()))

    def connectionLost(self, reason):
        if reactor.running:
            reactor.stop()


factory = ClientFactory()
factory.protocol = Transport
reactor.connectTCP("127.0.0.1", port, factory)
reactor.callLater(60, reactor.stop)
reactor.run()

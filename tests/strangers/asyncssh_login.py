"""What asyncssh needs to reach `web-1` through the proxy as whoever is logged in at HOME, and nothing of the machine's own."""


def options(home):
    return {
        "username": "root+web-1",
        "client_keys": [(f"{home}/id", f"{home}/id-cert.pub")],
        "known_hosts": f"{home}/known_hosts",
        "agent_path": None,
        "config": None,
    }

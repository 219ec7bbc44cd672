"""One BitTorrent peer on 127.0.0.1, for bench: seeds a file, gets it, or makes its torrent.

  torrent.py make FILE TORRENT           writes a version 1 torrent, whose pieces are hashed with SHA-1
  torrent.py peer TORRENT FILE [ADDR...] holds or gets the file

With --uplink=N it uploads no more than N bytes a second. A peer prints {"addr": "127.0.0.1:PORT"} once it listens. It connects to the addresses of the command line, of the same
form, and prints {"bytes": ..., "duplicate_bytes": ...} when it has the file. With --once it then ends; else it also
connects to those in lines of JSON, {"peers": [ADDR, ...]}, on its standard input, and seeds until SIGTERM, when it
prints {"sent": ...}.
"""

import json
import os
import signal
import sys
import threading
import time

import libtorrent as lt

PIECE = 1 << 20
SETTINGS = {
    "user_agent": "bench", "listen_interfaces": "127.0.0.1:0",
    # Nobody but the peers that it is told of.
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    # All peers of a swarm have this host's address.
    "allow_multiple_connections_per_ip": True,
    # Clear text over TCP, which is the fastest that it has.
    "in_enc_policy": 2, "out_enc_policy": 2, "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification
    | lt.alert.category_t.storage_notification,
}


def make(path, out):
    files = lt.file_storage()
    lt.add_files(files, path)
    torrent = lt.create_torrent(files, PIECE, lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, os.path.dirname(path))
    with open(out, "wb") as f:
        f.write(lt.bencode(torrent.generate()))


def say(**what):
    print(json.dumps(what), flush=True)


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def die(why):
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


class Peer:
    def __init__(self, torrent, path, uplink):
        self.session = lt.session(SETTINGS | ({"upload_rate_limit": uplink} if uplink else {}))
        if uplink:
            # Peers on loopback are otherwise not limited.
            all_alike = lt.ip_filter()
            all_alike.add_rule("0.0.0.0", "255.255.255.255", 1 << int(lt.session.global_peer_class_id))
            self.session.set_peer_class_filter(all_alike)
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(torrent)
        params.ti.rename_file(0, os.path.basename(path))
        params.save_path = os.path.dirname(path)
        # Neither queued nor paused nor told to trackers: it runs from the start.
        params.flags = lt.torrent_flags.update_subscribe
        self.handle = self.session.add_torrent(params)
        self.stopping = False

    def stop(self, *_):
        self.stopping = True

    def wait(self, kind):
        """Takes alerts until one of the kind comes, or it is told to stop."""
        while not self.stopping:
            self.session.wait_for_alert(100)
            for alert in self.session.pop_alerts():
                if isinstance(alert, kind):
                    return
                if isinstance(alert, (lt.file_error_alert, lt.torrent_error_alert, lt.listen_failed_alert)):
                    die(alert.message())

    def connect(self, addresses):
        for a in addresses:
            self.handle.connect_peer(address(a))

    def listen_to_orders(self):
        for line in sys.stdin:
            self.connect(json.loads(line)["peers"])

    def run(self, addresses, once):
        signal.signal(signal.SIGTERM, self.stop)
        self.wait(lt.torrent_checked_alert)
        had = self.handle.status().is_seeding
        while self.session.listen_port() == 0 and not self.stopping:
            time.sleep(0.001)
        say(addr="127.0.0.1:%d" % self.session.listen_port())
        self.connect(addresses)
        if not once:
            threading.Thread(target=self.listen_to_orders, daemon=True).start()
        if not had:
            self.wait(lt.torrent_finished_alert)
            status = self.handle.status()
            twice = status.total_redundant_bytes + status.total_failed_bytes
            say(bytes=status.total_wanted_done, duplicate_bytes=twice)
        if not once:
            while not self.stopping:
                time.sleep(0.05)
            say(sent=self.handle.status().total_payload_upload)
        self.session.pause()
        self.handle.flush_cache()


def main(args):
    if args[0] == "version":
        say(version=lt.version)
    elif args[0] == "make":
        make(*args[1:])
    elif args[0] == "peer":
        once = "--once" in args
        uplink = max([int(a.removeprefix("--uplink=")) for a in args if a.startswith("--uplink=")], default=0)
        args = [a for a in args if not a.startswith("--")]
        Peer(args[1], args[2], uplink).run(args[3:], once)
    else:
        die("no command " + args[0])


main(sys.argv[1:])

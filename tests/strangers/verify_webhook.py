"""Checks a webhook (a JSON object on standard input: headers, body) as its receiver does: `v1` by the library that Standard
Webhooks publishes, `v1a` by an Ed25519 of others. The keys are the arguments, whsec_… or whpk_…; prints which of them fit."""

import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def fits(key, headers, body):
    if key.startswith("whsec_"):
        try:
            Webhook(key).verify(body, headers)
            return True
        except WebhookVerificationError:
            return False
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    for signature in headers["webhook-signature"].split(" "):
        version, text = signature.split(",")
        if version == "v1a":
            try:
                public.verify(base64.b64decode(text), content)
                return True
            except InvalidSignature:
                pass
    return False


received = json.load(sys.stdin)
for key in sys.argv[1:]:
    print(fits(key, received["headers"], received["body"]))

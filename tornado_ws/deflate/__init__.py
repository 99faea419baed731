"""permessage-deflate (RFC 7692): options, negotiation, and the streams that compress and decompress."""

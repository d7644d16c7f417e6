"""What the operations of the public API are called, how they refuse, and what leads where. Data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Key = tuple[str, str]

USER = ("get", "/api/v1/users/{user_id}")
ORDER = ("get", "/api/v1/orders/{order_id}")
PAYMENT = ("get", "/api/v1/orders/{order_id}/payment")
INVOICE = ("get", "/api/v1/orders/{order_id}/invoice")
TOLD = ("get", "/api/v1/orders/{order_id}/notifications")
CANCEL = ("post", "/api/v1/orders/{order_id}/cancel")
PLACE = ("post", "/api/v1/orders")
LIST = ("get", "/api/v1/orders")
PRODUCT = ("get", "/api/v1/products/{sku}")

# (service, operationId, summary)
NAMES: Mapping[Key, tuple[str, str, str]] = {
    ("post", "/oauth/token"): ("auth", "getToken", "Get an access token"),
    ("post", "/oauth/revoke"): ("auth", "revokeToken", "End a session by its refresh token"),
    ("post", "/oauth/keys"): ("auth", "rotateKeys", "Make a new signing key"),
    ("get", "/.well-known/jwks.json"): ("auth", "getKeys", "Public keys of access tokens"),
    ("get", "/.well-known/oauth-authorization-server"): (
        "auth", "getAuthorizationServer", "Metadata of the authorization server",
    ),
    ("get", "/api/v1/audit"): ("auth", "listAuditEvents", "Security events, latest first"),
    ("post", "/api/v1/users"): ("users", "registerUser", "Register"),
    ("get", "/api/v1/users"): ("users", "listUsers", "List users"),
    USER: ("users", "getUser", "Get a user"),
    ("patch", "/api/v1/users/{user_id}"): ("users", "changeUser", "Change a user"),
    PLACE: ("orders", "placeOrder", "Place an order"),
    LIST: ("orders", "listOrders", "List a user's orders, latest first"),
    ("get", "/api/v1/orders/search"): ("orders", "searchOrders", "Search orders by product"),
    ORDER: ("orders", "getOrder", "Get an order"),
    CANCEL: ("orders", "cancelOrder", "Cancel an order"),
    PAYMENT: ("payments", "getPayment", "Get an order's payment"),
    INVOICE: ("payments", "getInvoice", "Get a signed URL of an order's invoice"),
    ("post", "/api/v1/payments/webhook"): (
        "payments", "receiveWebhook", "What the payment gateway tells of a charge",
    ),
    ("get", "/api/v1/products"): ("inventory", "listProducts", "List or search products"),
    PRODUCT: ("inventory", "getProduct", "Get a product"),
    ("patch", "/api/v1/products/{sku}"): ("inventory", "changeProduct", "Change a product"),
    ("get", "/static/{name}"): ("inventory", "getStaticFile", "Get a static file"),
    TOLD: ("notifications", "listOrderNotifications", "What the user was told of an order"),
}  # fmt: skip

REFUSALS: Mapping[int, str] = {
    400: "The body cannot be read, or the grant is not good",
    401: "No access token, or one that is not accepted",
    403: "The caller may not do this",
    404: "There is nothing of that name, or it is somebody else's",
    409: "The state of things does not allow it",
    413: "The body is larger than 64 KiB",
    422: "The request is not valid, or its Idempotency-Key was used for another",
    425: "The position is of a write that this server has not heard of yet; try again",
    429: "More requests than the caller's limit",
    503: "A server that is needed does not answer; try again",
}
FORBIDDEN = frozenset(
    [
        ("post", "/oauth/keys"),
        ("get", "/api/v1/audit"),
        ("get", "/api/v1/users"),
        ("patch", "/api/v1/users/{user_id}"),
        ("patch", "/api/v1/products/{sku}"),
    ]
)
ABSENT = frozenset([PLACE, LIST, ("get", "/api/v1/orders/search")])
CONFLICTS = frozenset(
    [("post", "/api/v1/users"), ("patch", "/api/v1/users/{user_id}"), INVOICE]
)  # fmt: skip
# Here an access token in the request is passed over.
NO_TOKEN = frozenset([("get", "/.well-known/jwks.json")])

_OF_ORDER = {"order_id": "$response.body#/id"}
_OF_USER = {"user_id": "$response.body#/id"}


def _link(to: Key, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {"operationId": NAMES[to][1], "parameters": dict(parameters)}


# What of an answer names the thing that the next request is about.
LINKS: Mapping[Key, Mapping[str, dict[str, Any]]] = {
    ("post", "/api/v1/users"): {
        "user": _link(USER, _OF_USER),
        "orders": _link(LIST, _OF_USER),
        "change": _link(("patch", "/api/v1/users/{user_id}"), _OF_USER),
        "place": {
            "operationId": NAMES[PLACE][1],
            "requestBody": {
                "user_id": "$response.body#/id",
                "items": [{"sku": "MUG-ONCALL", "quantity": 1}],
            },
        },
    },
    PLACE: {
        "order": _link(ORDER, _OF_ORDER),
        "cancel": _link(CANCEL, _OF_ORDER),
        "payment": _link(PAYMENT, _OF_ORDER),
        "invoice": _link(INVOICE, _OF_ORDER),
        "notifications": _link(TOLD, _OF_ORDER),
    },
    CANCEL: {"order": _link(ORDER, _OF_ORDER), "payment": _link(PAYMENT, _OF_ORDER)},
}

EXAMPLES: Mapping[str, Any] = {
    "NewUser": {
        "email": "ada@example.org",
        "name": "Ada Lovelace",
        "password": "correct horse battery",
    },
    "UserChange": {"name": "Ada King"},
    "NewOrder": {"items": [{"sku": "MUG-ONCALL", "quantity": 2}], "payment_method": "card"},
    "ProductChange": {"price": {"amount": "12.50", "currency": "USD"}, "add_stock": 100},
}
GRANTS = {
    "password": {
        "grant_type": "password",
        "username": "ada@example.org",
        "password": "correct horse battery",
    },
    "refresh": {"grant_type": "refresh_token", "refresh_token": "…"},
    "client": {"grant_type": "client_credentials", "client_id": "probe", "client_secret": "…"},
}

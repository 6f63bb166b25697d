// A customer's story, lived by the generated client: arguments are the base URL, an e-mail address and a password.
import createClient from "openapi-fetch";
import type { components, paths } from "./shop.js";

type Order = components["schemas"]["Order"];

const [baseUrl, email, password] = process.argv.slice(2) as [string, string, string];
const api = createClient<paths>({ baseUrl });

function got<T>(answer: { data?: T; error?: unknown }): NonNullable<T> {
  if (answer.data === undefined || answer.data === null) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

got(await api.POST("/v1/users", { body: { email, password, name: "Ada Lovelace" } }));
const session = got(await api.POST("/v1/sessions", { body: { email, password } }));
api.use({
  onRequest({ request }) {
    request.headers.set("authorization", `Bearer ${session.access_token}`);
    return request;
  },
});

const products = got(await api.GET("/v1/products", { params: { query: { limit: 1 } } }));
const product = products.items[0];
if (product === undefined) throw new Error("no product");
const price: number = product.price.amount;
let order: Order = got(
  await api.POST("/v1/orders", {
    params: { header: { "Idempotency-Key": "story-typescript" } },
    body: {
      lines: [{ product_id: product.id, quantity: 1 }],
      shipping_address: {
        name: "Ada Lovelace",
        line1: "Hauptstr. 1",
        city: "Berlin",
        postal_code: "10115",
        country: "DE",
      },
      payment_token: "tok_ok",
    },
  }),
);
for (const deadline = Date.now() + 60_000; order.status !== "CONFIRMED"; ) {
  if (Date.now() > deadline) throw new Error(`still ${order.status}`);
  await new Promise((resolve) => setTimeout(resolve, 100));
  order = got(await api.GET("/v1/orders/{order_id}", { params: { path: { order_id: order.id } } }));
}
const page = got(await api.GET("/v1/orders", { params: { query: { status: "CONFIRMED" } } }));
const next: string | null = page.next_cursor;
if (page.items.length !== 1 || next !== null || order.total.amount !== price) throw new Error(JSON.stringify(page));
console.log(order.status);

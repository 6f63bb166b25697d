import java.net.URI;
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.OrdersApi;
import org.openapitools.client.api.ProductsApi;
import org.openapitools.client.api.SessionsApi;
import org.openapitools.client.api.UsersApi;
import org.openapitools.client.model.LineIn;
import org.openapitools.client.model.Login;
import org.openapitools.client.model.Order;
import org.openapitools.client.model.OrderPage;
import org.openapitools.client.model.OrderStatus;
import org.openapitools.client.model.PlaceOrder;
import org.openapitools.client.model.Product;
import org.openapitools.client.model.Register;
import org.openapitools.client.model.Session;
import org.openapitools.client.model.AddressIn;

/** A customer's story, lived by the generated client: arguments are the base URL, an e-mail address and a password. */
public class Story {
  public static void main(String[] args) throws Exception {
    String email = args[1];
    String password = args[2];
    ApiClient client = new ApiClient();
    client.updateBaseUri(args[0]);
    new UsersApi(client).registerUser(new Register().email(email).password(password).name("Ada Lovelace"));
    Session session = new SessionsApi(client).logIn(new Login().email(email).password(password));
    client.setRequestInterceptor(
        request -> request.header("Authorization", "Bearer " + session.getAccessToken()));

    Product product = new ProductsApi(client).listProducts(null, null, null, 1, null).getItems().get(0);
    OrdersApi orders = new OrdersApi(client);
    PlaceOrder wanted =
        new PlaceOrder()
            .lines(List.of(new LineIn().productId(product.getId()).quantity(1)))
            .shippingAddress(
                new AddressIn()
                    .name("Ada Lovelace")
                    .line1("Hauptstr. 1")
                    .city("Berlin")
                    .postalCode("10115")
                    .country("DE"))
            .paymentToken("tok_ok");
    Order order = orders.placeOrder(wanted, "story-java");
    long deadline = System.nanoTime() + 60_000_000_000L;
    while (order.getStatus() != OrderStatus.ORDER_STATUS_CONFIRMED) {
      if (System.nanoTime() > deadline) throw new IllegalStateException("still " + order.getStatus());
      Thread.sleep(100);
      order = orders.readOrder(order.getId(), null);
    }
    long amount = order.getTotal().getAmount();
    OrderPage page = orders.listOrders(OrderStatus.ORDER_STATUS_CONFIRMED, null, null);
    if (page.getItems().size() != 1 || page.getNextCursor() != null || amount <= 0) {
      throw new IllegalStateException(page.toString());
    }
    System.out.println(order.getStatus().getValue());
  }
}

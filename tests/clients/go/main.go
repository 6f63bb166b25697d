// A customer's story, lived by the generated client: arguments are the base URL, an e-mail address and a password.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	shop "shop.test/story/client"
)

func must[T any, R any](value T, _ R, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	base, email, password := os.Args[1], os.Args[2], os.Args[3]
	settings := shop.NewConfiguration()
	settings.Servers = shop.ServerConfigurations{{URL: base}}
	client := shop.NewAPIClient(settings)
	ctx := context.Background()
	must(client.UsersAPI.RegisterUser(ctx).Register(*shop.NewRegister(email, password, "Ada Lovelace")).Execute())
	session := must(client.SessionsAPI.LogIn(ctx).Login(*shop.NewLogin(email, password)).Execute())
	ctx = context.WithValue(ctx, shop.ContextAccessToken, session.AccessToken)

	product := must(client.ProductsAPI.ListProducts(ctx).Limit(1).Execute()).Items[0]
	lines := []shop.LineIn{*shop.NewLineIn(product.Id, 1)}
	address := shop.NewAddressInWithDefaults()
	address.SetName("Ada Lovelace")
	address.SetLine1("Hauptstr. 1")
	address.SetCity("Berlin")
	address.SetPostalCode("10115")
	address.SetCountry("DE")
	wanted := shop.NewPlaceOrder(lines, *address, "tok_ok")
	order := must(client.OrdersAPI.PlaceOrder(ctx).PlaceOrder(*wanted).IdempotencyKey("story-go").Execute())
	for deadline := time.Now().Add(time.Minute); order.Status != shop.ORDER_STATUS_CONFIRMED; {
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "still", order.Status)
			os.Exit(1)
		}
		time.Sleep(100 * time.Millisecond)
		order = must(client.OrdersAPI.ReadOrder(ctx, order.Id).Execute())
	}
	var amount int64 = order.Total.Amount
	page := must(client.OrdersAPI.ListOrders(ctx).Status(shop.ORDER_STATUS_CONFIRMED).Execute())
	if len(page.Items) != 1 || page.NextCursor.Get() != nil || amount <= 0 {
		fmt.Fprintln(os.Stderr, "unexpected page", page)
		os.Exit(1)
	}
	fmt.Println(order.Status)
}
